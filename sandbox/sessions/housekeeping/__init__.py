"""Periodic work that one replica does for all: expiry, deletion of old history, removal of stray resources."""
