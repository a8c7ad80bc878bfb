"""Runs the blocking calls of the Docker SDK in threads, with a deadline, and translates their errors."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import docker

from sandbox.engine.docker.connection import connect, is_local
from sandbox.engine.docker.errors import DOCTOR_HINT, FOREIGN_ERRORS, translate
from sandbox.errors import EngineError, Kind
from sandbox.telemetry.metrics.collectors import engine_call

T = TypeVar("T")


class DockerCalls:
    """Runs functions that use an `APIClient` in a bounded thread pool.

    The client connects at the first call. The constructor does no I/O, and an engine that starts later is found.

    A call that misses its deadline raises EngineError `engine_timeout`, but the engine may still carry it out. Callers
    therefore check the engine's state before they act again.
    """

    def __init__(self, docker_host: str | None, *, threads: int = 16) -> None:
        self._docker_host = docker_host
        self._threads = threads
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="docker")
        self._client: docker.APIClient | None = None
        self._connecting = threading.Lock()

    @property
    def local(self) -> bool:
        """Whether the engine is reached through a socket of this machine, so that it may share the host's folders."""
        return is_local(self._docker_host)

    async def call(self, work: Callable[[docker.APIClient], T], *, deadline_seconds: float = 30.0) -> T:
        """Run `work(client)` in the pool and return its result.

        If the caller is cancelled, the cancellation is raised only once the call has ended or its deadline has passed,
        so that clean-up code finds everything that the call has created.

        Raises EngineError, including its subclasses `EngineNotFound` and `EngineConflict`.
        """
        running = self._pool.submit(self.run, work)
        future = asyncio.wrap_future(running)
        deadline = time.monotonic() + deadline_seconds
        try:
            # Before Python 3.12, wait_for loses a cancellation that arrives together with the result.
            async with asyncio.timeout(deadline_seconds):
                return await asyncio.shield(future)
        except TimeoutError:
            future.add_done_callback(_retrieve_exception)
            raise EngineError(
                f"the container engine did not answer within {deadline_seconds:g} s",
                code="engine_timeout",
                kind=Kind.TIMEOUT,
                hint=DOCTOR_HINT,
            ) from None
        except asyncio.CancelledError:
            future.add_done_callback(_retrieve_exception)
            if not running.cancel():
                await asyncio.wait({future}, timeout=deadline - time.monotonic())
            raise

    def run(self, work: Callable[[docker.APIClient], T]) -> T:
        """Run `work(client)` in the calling thread, without a deadline. Blocks; raises what `call` raises."""
        with engine_call():
            try:
                return work(self._connected())
            except EngineError:
                raise
            except FOREIGN_ERRORS as error:
                raise translate(error) from error

    async def aclose(self) -> None:
        """Cancel the calls that have not begun and close the connections. Running calls go on in their threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def _connected(self) -> docker.APIClient:
        with self._connecting:
            if self._client is None:
                self._client = connect(self._docker_host, max_connections=self._threads)
            return self._client


def _retrieve_exception(future: asyncio.Future[Any]) -> None:
    """Mark the exception of an abandoned call as retrieved, or asyncio logs that it never was."""
    if not future.cancelled():
        future.exception()
