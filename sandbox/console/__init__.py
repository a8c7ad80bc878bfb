"""The web console: one page to create and watch sandboxes."""
