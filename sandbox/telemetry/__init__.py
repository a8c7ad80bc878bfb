"""Recording our own logs and spans, in batches, off the way of requests."""
