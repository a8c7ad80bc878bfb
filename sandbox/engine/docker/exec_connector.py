"""The way to a guest agent through the engine's exec, for where a socket cannot be shared: a remote engine, a virtual
machine, a service that is not root.

`docker exec -i ... connect` bridges its stdin and stdout to the guest agent's socket in the container. Two threads a
connection pump the engine's multiplexed stream into one end of a socket pair; the other end is given out. An exec costs
about 50 ms, so connections are worth keeping. A service that goes away takes its bridges with it: their stdin ends.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import Any

import docker
from docker.utils.socket import STDOUT, SocketError, frames_iter

from sandbox.engine.docker.calls import DockerCalls
from sandbox.engine.docker.container_config import GUEST_FOLDER, GUEST_SOCKET
from sandbox.errors import EngineError, GuestError

_COMMAND = ["python3", "-I", "-S", "/opt/sandbox-agent", "connect", "--socket", f"{GUEST_FOLDER}/{GUEST_SOCKET}"]
#: The bridge runs as root: what it finds by name must not be up to the session's environment.
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_DEADLINE_SECONDS = 15.0
_BLOCK = 65_536


class ExecConnector:
    """Gives connected, non-blocking sockets to the guest agent of one container.

    Raises GuestError `agent_unreachable` if the engine cannot run the bridge; a guest agent that does not listen
    shows as an end of the stream with nothing read.
    """

    def __init__(self, calls: DockerCalls, container: str) -> None:
        self._calls = calls
        self._container = container

    async def __call__(self) -> socket.socket:
        try:
            return await self._calls.call(self._open, deadline_seconds=_DEADLINE_SECONDS)
        except EngineError as error:
            raise GuestError(
                f"the bridge to the agent in {self._container} cannot be run: {error.message}",
                code="agent_unreachable",
                hint=error.hint or "the container may have ended: see its status",
            ) from error

    def _open(self, client: docker.APIClient) -> socket.socket:
        """Pumps from the start: if nobody waits for the result any more, dropping it closes all."""
        made = client.exec_create(self._container, _COMMAND, stdin=True, user="0", environment=_ENVIRONMENT)
        stream = client.exec_start(made["Id"], socket=True)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        _Pump(stream, theirs).start()
        return ours


class _Pump:
    """Copies both ways until both are at their end, or the far side of `near` is closed altogether."""

    def __init__(self, stream: Any, near: socket.socket) -> None:
        #: What the SDK gives: a socket, or a file object around one that it keeps the response alive by.
        self._stream = stream
        self._far = getattr(stream, "_sock", stream)
        self._far.settimeout(None)
        self._near = near
        self._running = 2
        self._lock = threading.Lock()

    def start(self) -> None:
        for work in (self._inwards, self._outwards):
            threading.Thread(target=self._run, args=(work,), name="exec-bridge", daemon=True).start()

    def _run(self, work: Any) -> None:
        try:
            # Either side may go at any moment; that is how a connection ends.
            with contextlib.suppress(OSError, SocketError):
                work()
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    self._close()

    def _inwards(self) -> None:
        """From the container: what the bridge prints, without what it complains of."""
        try:
            for kind, data in frames_iter(self._stream, tty=False):
                if kind == STDOUT:
                    self._near.sendall(data)
            self._near.shutdown(socket.SHUT_WR)
        except OSError:
            self._far.shutdown(socket.SHUT_RDWR)
            raise

    def _outwards(self) -> None:
        """To the container, in the frames that `connect` reads. An end of what we send is passed on as an empty one; a
        closed socket ends the exec."""
        while data := self._near.recv(_BLOCK):
            self._far.sendall(len(data).to_bytes(4, "big") + data)
        self._far.sendall(bytes(4))
        closed = select.poll()
        closed.register(self._near, 0)  # tells of a full close only
        closed.poll()
        self._far.shutdown(socket.SHUT_RDWR)

    def _close(self) -> None:
        self._near.close()
        # The response first: closing flushes a file object on top of the stream.
        response = getattr(self._stream, "_response", None)
        if response is not None:
            response.close()
        self._stream.close()
        self._far.close()
