"""The preview proxy, which serves the apps of sessions under host names of their own."""
