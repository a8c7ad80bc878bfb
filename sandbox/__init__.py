"""purple8-sandbox: generated projects as live, previewable sandboxes, and the record of what happened around them."""
