"""Retention: what is kept for how long."""
