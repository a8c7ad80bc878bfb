"""The `Engine` contract on the Docker SDK; the only place that imports `docker`."""
