"""Projects of many frameworks, launched without configuration on a running service: `make corpus`."""
