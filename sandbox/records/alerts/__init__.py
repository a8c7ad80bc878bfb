"""Alerts: opened by hand, by rules and by Alertmanager; told to a webhook."""
