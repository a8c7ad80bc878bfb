"""Telemetry of the service itself: logging, tracing, metrics, and the recorder that writes logs and spans."""
