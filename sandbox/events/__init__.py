"""The append-only event log of each session, its live fan-out, and the encoding of server-sent events."""
