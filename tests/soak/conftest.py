"""The same services as in the acceptance tests."""

from tests.acceptance.conftest import docker_client, make_service

__all__ = ["docker_client", "make_service"]
