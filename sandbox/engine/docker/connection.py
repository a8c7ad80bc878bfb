"""Clients of the container engine, for work outside sessions: setting the engine up, and making images. All blocks."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import docker
import docker.constants
import docker.errors
import docker.utils
import requests
import urllib3.exceptions

from sandbox.engine.docker.calls import unreachable

#: What the SDK lets through of the libraries beneath it.
FOREIGN_ERRORS = (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError)


@contextmanager
def connected(docker_host: str | None, *, timeout_seconds: float) -> Iterator[docker.APIClient]:
    """A client for the block; `docker_host` None is the local socket. An answer may be silent for `timeout_seconds`.

    Raises EngineError `engine_unreachable`.
    """
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    if docker_host is not None:
        environment["DOCKER_HOST"] = docker_host
    try:
        _knock(docker_host or docker.constants.DEFAULT_UNIX_SOCKET)
        client = docker.APIClient(
            **docker.utils.kwargs_from_env(environment=environment), version="auto", timeout=timeout_seconds
        )
    except FOREIGN_ERRORS as error:
        raise unreachable(str(error)) from error
    with closing(client):
        yield client


def _knock(docker_host: str) -> None:
    """Raise OSError if nobody listens at a local socket. The SDK would find out too, and leave a socket open behind."""
    kind, _, path = docker_host.partition("://")
    if kind.endswith("unix"):
        with socket.socket(socket.AF_UNIX) as local:
            local.connect(f"/{path.lstrip('/')}")


def engine_version(docker_host: str | None) -> str:
    """The version of the engine that answers. Raises EngineError `engine_unreachable` within seconds."""
    with connected(docker_host, timeout_seconds=10) as client:
        try:
            return str(client.version()["Version"])
        except FOREIGN_ERRORS as error:
            raise unreachable(str(error)) from error


def default_bridge_mtu(docker_host: str | None) -> int | None:
    """MTU of the network that image builds use, as the engine gives it to containers; None if it does not say.

    Asked of the engine: the bridge's own device shows its real MTU only while a container is on it. Raises EngineError
    `engine_unreachable`.
    """
    with connected(docker_host, timeout_seconds=10) as client:
        try:
            options = client.inspect_network("bridge").get("Options") or {}
        except docker.errors.NotFound:
            return None
        except FOREIGN_ERRORS as error:
            raise unreachable(str(error)) from error
    mtu = options.get("com.docker.network.driver.mtu", "")
    return int(mtu) if mtu.isdigit() else None
