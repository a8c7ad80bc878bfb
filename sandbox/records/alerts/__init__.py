"""Alerts: opened by people, by rules and by Alertmanager; delivered to a webhook."""
