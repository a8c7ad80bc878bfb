"""The engine's event stream. Reading it blocks, so a thread reads it and passes the events to the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import docker
import docker.errors
from docker.types import CancellableStream

from sandbox.engine import labels
from sandbox.engine.base import EngineEvent
from sandbox.engine.docker.calls import DockerCalls
from sandbox.engine.docker.errors import unreachable
from sandbox.engine.docker.states import session_of
from sandbox.errors import EngineError

#: The engine's name of each action that is reported, and ours. Podman names some of them differently from Docker.
_ACTIONS = {"start": "start", "die": "die", "died": "die", "oom": "oom", "destroy": "destroy", "remove": "destroy"}


def follow(calls: DockerCalls, deployment_id: UUID) -> AsyncIterator[EngineEvent]:
    """Return the events of the deployment's containers from the time of this call on, even if iteration begins later.

    The engine counts in whole seconds, so events from just before the call may be included. The iterator raises
    EngineError when the stream ends, which happens only when the engine stops or the connection breaks. Closing the
    iterator, or cancelling the task that reads it, closes the stream.
    """
    return _events(calls, deployment_id, int(time.time()))


async def _events(calls: DockerCalls, deployment_id: UUID, since: int) -> AsyncIterator[EngineEvent]:
    queue: asyncio.Queue[EngineEvent | EngineError] = asyncio.Queue()
    reader = _Reader(calls, deployment_id, since, asyncio.get_running_loop(), queue)
    threading.Thread(target=reader.run, name="docker-events", daemon=True).start()
    try:
        while True:
            item = await queue.get()
            if isinstance(item, EngineError):
                raise item
            yield item
    finally:
        reader.stop()


class _Reader:
    """Reads the stream in a thread until `stop` or the stream's end. Its last item is the error that ended it."""

    def __init__(
        self,
        calls: DockerCalls,
        deployment_id: UUID,
        since: int,
        loop: asyncio.AbstractEventLoop,
        queue: asyncio.Queue[EngineEvent | EngineError],
    ) -> None:
        self._calls = calls
        self._filters = {
            "type": ["container"],
            "label": [f"{labels.DEPLOYMENT}={deployment_id}"],
            "event": list(_ACTIONS),
        }
        self._since = since
        self._loop = loop
        self._queue = queue
        self._lock = threading.Lock()
        self._stopped = False
        self._stream: CancellableStream | None = None

    def run(self) -> None:
        try:
            self._calls.run(self._read)
            self._put(unreachable("its event stream ended"))
        except EngineError as error:
            self._put(error)

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._stream is not None:
                # The stream may have ended already, or use SSH, where the SDK cannot close it.
                with contextlib.suppress(OSError, docker.errors.DockerException):
                    self._stream.close()

    def _read(self, client: docker.APIClient) -> None:
        stream = client.events(since=self._since, filters=self._filters, decode=True)
        with self._lock:
            self._stream = stream
        if self._stopped:
            self.stop()
            return
        for raw in stream:
            event = _event(raw)
            if event is not None:
                self._put(event)

    def _put(self, item: EngineEvent | EngineError) -> None:
        with contextlib.suppress(RuntimeError):  # The event loop is closed.
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)


def _event(raw: Mapping[str, Any]) -> EngineEvent | None:
    """Return the event, or None if it is not of a session's container."""
    actor = raw.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    action, session_id, role = _ACTIONS.get(raw.get("Action", "")), session_of(attributes), attributes.get(labels.ROLE)
    if action is None or session_id is None or role is None:
        return None
    exit_code = attributes.get("exitCode", "")
    return EngineEvent(
        action=action,
        session_id=session_id,
        role=role,
        container_id=actor.get("ID", ""),
        exit_code=int(exit_code) if exit_code.isdigit() else None,
        time=datetime.fromtimestamp(raw.get("timeNano", raw.get("time", 0) * 10**9) / 10**9, UTC),
    )
