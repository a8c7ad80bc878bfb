"""Lessons, their application to a run, and how it turned out."""
