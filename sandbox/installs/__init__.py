"""Installed dependencies that are kept for later launches of their owner."""
