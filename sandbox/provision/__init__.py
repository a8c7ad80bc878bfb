"""Sets up a host: installs and starts a container engine, and builds base images.

Only the command line and the image builds use it.
"""
