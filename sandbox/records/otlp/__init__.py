"""OTLP: records as any OpenTelemetry exporter sends them."""
