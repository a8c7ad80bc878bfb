"""Refinement runs: they read what failed since the last one and write lessons from it."""
