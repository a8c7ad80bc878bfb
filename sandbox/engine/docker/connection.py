"""Connections to the container engine. Everything here blocks: call it in a thread."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import docker
import docker.errors
import docker.utils
from docker.constants import DEFAULT_MAX_POOL_SIZE, DEFAULT_TIMEOUT_SECONDS

from sandbox.engine.docker.errors import FOREIGN_ERRORS, unreachable

_DEFAULT_HOST = "unix:///var/run/docker.sock"
_SOCKET_SCHEMES = ("unix://", "http+unix://")
_QUERY_SECONDS = 10.0


def is_local(docker_host: str | None) -> bool:
    """Return whether the engine is reached through a socket of this machine. None means the default socket."""
    return docker_host is None or docker_host.startswith(_SOCKET_SCHEMES)


def connect(
    docker_host: str | None,
    *,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    max_connections: int = DEFAULT_MAX_POOL_SIZE,
) -> docker.APIClient:
    """Return a new client of the engine, which the caller closes.

    `docker_host` None is the default socket. A call of the client fails if the engine sends nothing for
    `timeout_seconds`. Raises EngineError `engine_unreachable`.
    """
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    if docker_host is not None:
        environment["DOCKER_HOST"] = docker_host
    try:
        if is_local(docker_host):
            _check_socket(docker_host or _DEFAULT_HOST)
        client = docker.APIClient(
            **docker.utils.kwargs_from_env(environment=environment),
            version="auto",
            timeout=timeout_seconds,
            max_pool_size=max_connections,
        )
    except FOREIGN_ERRORS as error:
        # While it is constructed, the SDK wraps every error of its first request in a DockerException.
        raise unreachable(str(error)) from error
    if is_local(docker_host):
        # Otherwise requests reads the proxy variables and .netrc on every call. A local socket needs neither.
        client.trust_env = False
    return client


def _check_socket(docker_host: str) -> None:
    """Raise OSError if nothing listens on a local socket. The SDK detects this too, but leaks the socket it opened."""
    _, _, path = docker_host.partition("://")
    with socket.socket(socket.AF_UNIX) as local:
        local.connect(f"/{path.lstrip('/')}")


@contextmanager
def connected(docker_host: str | None, *, timeout_seconds: float) -> Iterator[docker.APIClient]:
    """Provide a client of the engine and close it at the end of the block. For arguments and errors see `connect`."""
    with closing(connect(docker_host, timeout_seconds=timeout_seconds)) as client:
        yield client


def engine_version(docker_host: str | None) -> str:
    """Return the version of the engine. Raises EngineError `engine_unreachable` within seconds if none answers."""
    with connected(docker_host, timeout_seconds=_QUERY_SECONDS) as client:
        try:
            return str(client.version()["Version"])
        except FOREIGN_ERRORS as error:
            raise unreachable(str(error)) from error


def default_bridge_mtu(docker_host: str | None) -> int | None:
    """Return the MTU of the network that image builds use, or None if the engine does not state it.

    The engine is asked because the bridge's own device shows its real MTU only while a container is attached to it.
    Raises EngineError `engine_unreachable`.
    """
    with connected(docker_host, timeout_seconds=_QUERY_SECONDS) as client:
        try:
            options = client.inspect_network("bridge").get("Options") or {}
        except docker.errors.NotFound:
            return None
        except FOREIGN_ERRORS as error:
            raise unreachable(str(error)) from error
    mtu = options.get("com.docker.network.driver.mtu", "")
    return int(mtu) if mtu.isdigit() else None


def data_folder(docker_host: str | None) -> Path | None:
    """Return the folder in which the engine keeps images, containers and volumes; None if it is not on this machine.

    Raises EngineError `engine_unreachable`.
    """
    if not is_local(docker_host):
        return None
    with connected(docker_host, timeout_seconds=_QUERY_SECONDS) as client:
        try:
            folder = Path(str(client.info()["DockerRootDir"]))
        except FOREIGN_ERRORS as error:
            raise unreachable(str(error)) from error
    # It may be a path on another machine, or outside of the container in which this service runs.
    return folder if folder.is_dir() else None
