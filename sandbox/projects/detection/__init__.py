"""Detects which apps a project contains, and how each is installed and started, without running its code."""
