"""Agents and infrastructure components: how they are, by their own heartbeats."""
