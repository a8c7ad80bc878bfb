"""Rules by which alerts are opened and resolved."""
