"""Agents and infrastructure components: their health, from the heartbeats that they send."""
