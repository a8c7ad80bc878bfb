"""PostgreSQL: connections, migrations, what all stores share, and the embedded server."""
