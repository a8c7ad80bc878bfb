"""Connection, migration runner, the embedded PostgreSQL."""
