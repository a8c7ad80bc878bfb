"""Making a host ready: installing and starting a container engine, building base images.

Only the command line and image builds use it.
"""
