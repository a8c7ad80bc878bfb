"""Rules that open alerts by themselves."""
