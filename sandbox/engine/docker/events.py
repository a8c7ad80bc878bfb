"""The engine's event stream, read in a thread of its own (it blocks for as long as it lasts) and handed to the loop."""

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
from sandbox.engine.docker.calls import DockerCalls, unreachable
from sandbox.engine.docker.states import session_of
from sandbox.errors import EngineError

#: The engine's word for each action we tell of. Podman says some of them differently.
_ACTIONS = {"start": "start", "die": "die", "died": "die", "oom": "oom", "destroy": "destroy", "remove": "destroy"}


def follow(calls: DockerCalls, deployment_id: UUID) -> AsyncIterator[EngineEvent]:
    """Events of the deployment's containers from the second of this call on, whenever iteration begins.

    Those of that same second may be told although they came before. Raises EngineError when the stream ends, which it
    does only with the engine; closing the iterator, or cancelling the task that reads it, closes the stream.
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
    """Runs in a thread until `stop` or the end of the stream; the last thing it hands over is why it ended."""

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
            self._hand_over(unreachable("its stream of events ended"))
        except EngineError as error:
            self._hand_over(error)

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._stream is not None:
                # The stream may have ended by itself, or be over SSH, where it cannot be cut short.
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
                self._hand_over(event)

    def _hand_over(self, item: EngineEvent | EngineError) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)


def _event(raw: Mapping[str, Any]) -> EngineEvent | None:
    """None for what is not of a session's container."""
    actor = raw.get("Actor") or {}
    marks = actor.get("Attributes") or {}
    action, session_id, role = _ACTIONS.get(raw.get("Action", "")), session_of(marks), marks.get(labels.ROLE)
    if action is None or session_id is None or role is None:
        return None
    exit_code = marks.get("exitCode", "")
    return EngineEvent(
        action=action,
        session_id=session_id,
        role=role,
        container_id=actor.get("ID", ""),
        exit_code=int(exit_code) if exit_code.isdigit() else None,
        time=datetime.fromtimestamp(raw.get("timeNano", raw.get("time", 0) * 10**9) / 10**9, UTC),
    )
