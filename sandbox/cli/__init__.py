"""The command line: a client of the HTTP API, and the commands that set up and start the service."""
