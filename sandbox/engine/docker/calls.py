"""Blocking calls of the Docker SDK: off the event loop, under a deadline, their errors translated once."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import docker
import docker.errors
import docker.utils
import requests.exceptions
import urllib3.exceptions

from sandbox.errors import EngineError, Kind
from sandbox.telemetry.metrics.collectors import engine_call

T = TypeVar("T")

_DOCTOR = "run `sandbox doctor`: it says which engine is expected and how to start it"
_LOCAL_HOST = "unix:///var/run/docker.sock"
_FOREIGN = (
    docker.errors.DockerException,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
    ValueError,
)


class EngineNotFound(EngineError):
    """The engine has no such container, network or volume. An answer within this room; it does not leave it."""

    code = "engine_not_found"
    kind = Kind.NOT_FOUND


class EngineConflict(EngineError):
    """The engine refused because of the state something is in: a name taken, a removal under way, something in use."""

    code = "engine_conflict"
    kind = Kind.CONFLICT


class DockerCalls:
    """Runs functions of an `APIClient` in a bounded thread pool.

    The client is made at the first call, so constructing this does no I/O and an engine that comes up later is found.
    A call past its deadline raises `EngineError` `engine_timeout`; what it had asked for may still happen, which is why
    everything above looks before it acts.
    """

    def __init__(self, docker_host: str | None, *, threads: int = 16) -> None:
        self._docker_host = docker_host
        self._threads = threads
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="docker")
        self._client: docker.APIClient | None = None
        self._making = threading.Lock()

    @property
    def local(self) -> bool:
        """Whether the engine is reached by a socket of this machine, so that host folders can be shared with it."""
        return self._docker_host is None or self._docker_host.startswith("unix://")

    async def call(self, work: Callable[[docker.APIClient], T], *, deadline_seconds: float = 30.0) -> T:
        """Run `work(client)` in the pool. Raises EngineError, `EngineNotFound` and `EngineConflict` among them.

        A cancellation is raised once the call has ended, or its deadline has passed: whoever cleans up afterwards finds
        all that it made.
        """
        running = self._pool.submit(self.run, work)
        ending = asyncio.wrap_future(running)
        deadline = time.monotonic() + deadline_seconds
        try:
            # Not wait_for, which (before Python 3.12) loses a cancellation that meets the result.
            async with asyncio.timeout(deadline_seconds):
                return await asyncio.shield(ending)
        except TimeoutError:
            ending.add_done_callback(_look_at)
            raise EngineError(
                f"the container engine did not answer within {deadline_seconds:g} s",
                code="engine_timeout",
                kind=Kind.TIMEOUT,
                hint=_DOCTOR,
            ) from None
        except asyncio.CancelledError:
            ending.add_done_callback(_look_at)
            if not running.cancel():
                await asyncio.wait({ending}, timeout=deadline - time.monotonic())
            raise

    def run(self, work: Callable[[docker.APIClient], T]) -> T:
        """The same in the calling thread, without a deadline; for threads of this room's own."""
        with engine_call():
            try:
                return work(self._connected())
            except EngineError:
                raise
            except _FOREIGN as error:
                raise translated(error) from error

    async def aclose(self) -> None:
        """Drop what has not begun and close the connections. Calls under way run on in their threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def _connected(self) -> docker.APIClient:
        with self._making:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> docker.APIClient:
        environment = dict(os.environ)
        environment.pop("DOCKER_HOST", None)
        if self._docker_host is not None:
            environment["DOCKER_HOST"] = self._docker_host
        if self.local:
            # The SDK would leave the socket of a refused connection open.
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect((self._docker_host or _LOCAL_HOST).removeprefix("unix://"))
        try:
            client = docker.APIClient(
                **docker.utils.kwargs_from_env(environment=environment), version="auto", max_pool_size=self._threads
            )
        except docker.errors.DockerException as error:
            # At construction the SDK wraps whatever the first request met.
            raise unreachable(str(error)) from error
        if self.local:
            # requests would look for proxies and a .netrc on every call; neither is for a local socket.
            client.trust_env = False
        return client


def _look_at(ending: asyncio.Future[Any]) -> None:
    """Nobody waits for it any more: its error is not worth asyncio's complaint."""
    if not ending.cancelled():
        ending.exception()


def unreachable(cause: str) -> EngineError:
    """The engine does not answer, and why as far as can be told."""
    hint = _DOCTOR
    if "Permission denied" in cause:
        hint = "this user may not open the engine's socket: run as root, or add the user to the group `docker`"
    return EngineError(f"the container engine does not answer: {cause}", code="engine_unreachable", hint=hint)


def translated(error: Exception) -> EngineError:
    """Our error for a foreign one. The engine's own words are kept."""
    if isinstance(error, docker.errors.APIError):
        return _refusal(error)
    if isinstance(error, requests.exceptions.Timeout):
        return EngineError(
            f"the container engine did not answer: {error}", code="engine_timeout", kind=Kind.TIMEOUT, hint=_DOCTOR
        )
    if isinstance(error, ValueError):  # requests' JSON errors are OSErrors too, so this comes first
        return EngineError(f"the container engine's answer makes no sense: {error}", hint=_DOCTOR)
    return unreachable(str(error))


def _refusal(error: docker.errors.APIError) -> EngineError:
    words = str(error.explanation or error)
    if isinstance(error, docker.errors.ImageNotFound):
        return EngineError(
            f"the image is not on the engine: {words}", code="image_missing", hint="run `sandbox runtimes build`"
        )
    if isinstance(error, docker.errors.NotFound):
        return EngineNotFound(words)
    # A network in use is refused with 403.
    if error.status_code == 409 or "has active endpoints" in words:
        return EngineConflict(words)
    return EngineError(f"the container engine refused: {words}", hint="the engine's own log says more")
