"""The `Engine` contract implemented with the Docker SDK. No other package imports `docker`."""
