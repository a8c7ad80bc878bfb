"""The engine's event stream. Reading it blocks, so a thread reads it and passes the events to the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
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
from sandbox.engine.docker.states import container_state
from sandbox.errors import EngineError

log = logging.getLogger(__name__)

#: The engine's name of each action of a container, and ours. Podman names some of them differently from Docker.
_ACTIONS = {
    "start": "start",
    "die": "die",
    "died": "die",
    "oom": "oom",
    "destroy": "destroy",
    "remove": "destroy",
    "pause": "pause",
    "unpause": "unpause",
}
_DISCONNECT = "disconnect"
_NETWORK_GONE = ("destroy", "remove")


def follow(calls: DockerCalls, deployment_id: UUID) -> AsyncIterator[EngineEvent]:
    """Return the events of the deployment's containers and networks from the time of this call on.

    It does not matter how much later iteration begins. The engine counts in whole seconds, so events from just before
    the call may be included. The iterator raises EngineError when the stream ends, which happens only when the engine
    stops or the connection breaks. Closing the iterator, or cancelling the task that reads it, closes the stream.
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
        self._deployment_id = str(deployment_id)
        # There is no filter by label, because events of networks carry none.
        self._filters = {"type": ["container", "network"], "event": [*_ACTIONS, _DISCONNECT]}
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
        except Exception as error:
            # Without this error the reader of the events would wait for ever.
            log.exception("the engine's events cannot be read")
            self._put(unreachable(f"its events cannot be read: {error!r}"))

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
            event = self._network_event(client, raw) if raw.get("Type") == "network" else self._container_event(raw)
            if event is not None:
                self._put(event)

    def _container_event(self, raw: Mapping[str, Any]) -> EngineEvent | None:
        """Return the event, or None if it is not of a container of this deployment's sessions."""
        actor = raw.get("Actor") or {}
        attributes = actor.get("Attributes") or {}
        owner = labels.container_owner(attributes.get("name", ""))
        action = _ACTIONS.get(raw.get("Action", ""))
        ours = attributes.get(labels.DEPLOYMENT) == self._deployment_id
        if not ours or action is None or owner is None:
            return None
        session_id, role = owner
        exit_code = attributes.get("exitCode", "")
        code = int(exit_code) if exit_code.isdigit() else None
        return EngineEvent(action, session_id, role, actor.get("ID", ""), code, _time(raw))

    def _network_event(self, client: docker.APIClient, raw: Mapping[str, Any]) -> EngineEvent | None:
        """Return the event, or None if it does not concern a session of this deployment.

        Which deployment a network that is gone belonged to is not known, but sessions have unique ids.
        """
        attributes = (raw.get("Actor") or {}).get("Attributes") or {}
        if raw.get("Action") in _NETWORK_GONE:
            session_id = labels.session_of_network(attributes.get("name", ""))
            return EngineEvent("network_destroy", session_id, "", "", None, _time(raw)) if session_id else None
        if raw.get("Action") != _DISCONNECT:
            return None
        try:
            found = client.inspect_container(attributes.get("container", ""))
        except docker.errors.APIError:
            return None
        state, marks = container_state(found), found["Config"].get("Labels") or {}
        # A container that ends is disconnected, too.
        if state.status != "running" or marks.get(labels.DEPLOYMENT) != self._deployment_id or state.session_id is None:
            return None
        return EngineEvent(_DISCONNECT, state.session_id, state.role or "", state.id, None, _time(raw))

    def _put(self, item: EngineEvent | EngineError) -> None:
        with contextlib.suppress(RuntimeError):  # The event loop is closed.
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)


def _time(raw: Mapping[str, Any]) -> datetime:
    return datetime.fromtimestamp(raw.get("timeNano", raw.get("time", 0) * 10**9) / 10**9, UTC)
