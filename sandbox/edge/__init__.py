"""The proxy in front of the service (Caddy): its program, its configuration and its process."""
