"""OTLP intake: log records and spans from OpenTelemetry exporters."""
