"""Lessons, their application to launches, and the outcomes."""
