"""The fixtures of the acceptance tests that the soak test uses."""

from tests.acceptance.conftest import docker_client, make_service

__all__ = ["docker_client", "make_service"]
