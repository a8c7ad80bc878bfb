"""The HTTP API: `routes/` has one file per resource, `http/` has what the routes share."""
