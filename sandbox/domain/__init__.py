"""Plain data and rules with no I/O: what a session, a stage, a plan, an event and a caller are."""
