"""Connections to a guest agent through the engine's exec.

They are used where host and container cannot share a socket: with a remote engine, with an engine in a virtual machine,
and for a service that is not root.

`docker exec -i ... connect` copies between its stdin and stdout and the guest agent's socket in the container. For each
connection, two threads copy between the engine's multiplexed stream and one end of a socket pair; the caller gets the
other end. Starting an exec takes about 50 ms, so connections should be reused. When the service's process ends, the
stdin of its execs ends, and so do they.
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
#: The exec runs as root, so the session's own PATH must not decide which program it finds.
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_DEADLINE_SECONDS = 15.0
_BLOCK = 65_536


class ExecConnector:
    """Returns connected, non-blocking sockets to the guest agent of one container.

    Raises GuestError `agent_unreachable` if the engine cannot run the exec. If the guest agent does not listen, the
    socket is at its end before anything has been read from it.
    """

    def __init__(self, calls: DockerCalls, container: str) -> None:
        self._calls = calls
        self._container = container

    async def __call__(self) -> socket.socket:
        try:
            return await self._calls.call(self._open, deadline_seconds=_DEADLINE_SECONDS)
        except EngineError as error:
            raise GuestError(
                f"the engine cannot connect to the guest agent in {self._container}: {error.message}",
                code="agent_unreachable",
                hint=error.hint or "the container may have ended: see its status",
            ) from error

    def _open(self, client: docker.APIClient) -> socket.socket:
        """Start the exec and the copying. If the caller no longer waits for the result, its disposal closes both."""
        created = client.exec_create(self._container, _COMMAND, stdin=True, user="0", environment=_ENVIRONMENT)
        stream = client.exec_start(created["Id"], socket=True)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        _Copier(stream, theirs).start()
        return ours


class _Copier:
    """Copies in both directions until both have ended, or until the caller has closed its end of the socket pair."""

    def __init__(self, stream: Any, near: socket.socket) -> None:
        #: The SDK returns a socket, or a file object around one that also keeps the HTTP response alive.
        self._stream = stream
        self._far = getattr(stream, "_sock", stream)
        self._far.settimeout(None)
        self._near = near
        self._running = 2
        self._lock = threading.Lock()

    def start(self) -> None:
        for work in (self._copy_from_container, self._copy_to_container):
            threading.Thread(target=self._run, args=(work,), name="exec-bridge", daemon=True).start()

    def _run(self, work: Any) -> None:
        try:
            # Either side may close the connection at any time.
            with contextlib.suppress(OSError, SocketError):
                work()
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    self._close()

    def _copy_from_container(self) -> None:
        """Copy the stdout of the exec to the socket. Its stderr is discarded."""
        try:
            for kind, data in frames_iter(self._stream, tty=False):
                if kind == STDOUT:
                    self._near.sendall(data)
            self._near.shutdown(socket.SHUT_WR)
        except OSError:
            self._far.shutdown(socket.SHUT_RDWR)
            raise

    def _copy_to_container(self) -> None:
        """Copy from the socket to the container, in the frames that `connect` reads.

        A half-closed socket is passed on as an empty frame. A closed socket ends the exec.
        """
        while data := self._near.recv(_BLOCK):
            self._far.sendall(len(data).to_bytes(4, "big") + data)
        self._far.sendall(bytes(4))
        closed = select.poll()
        closed.register(self._near, 0)  # An empty event mask reports only that the socket is fully closed.
        closed.poll()
        self._far.shutdown(socket.SHUT_RDWR)

    def _close(self) -> None:
        self._near.close()
        # The response is closed first, because closing a file object on top of the stream flushes it.
        response = getattr(self._stream, "_response", None)
        if response is not None:
            response.close()
        self._stream.close()
        self._far.close()
