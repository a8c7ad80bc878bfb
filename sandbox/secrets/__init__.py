"""Secrets: the keys of a deployment, what is encrypted with them, and the values that users keep by name."""
