"""Unix sockets in the folder shared with the service, each of which leads to a port of the container's apps.

The proxy in front of the service connects to them, so that the bytes of previews pass neither the service nor the
container's network. A socket connects to the app on whichever address it listens: the loopback, else the container's
own. Each socket belongs to one visitor; closing it ends the visitor's connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import re
import socket
import time
from collections.abc import Callable
from typing import Any

from .app_port import connect_to_app
from .errors import Refused, bad_request
from .heads import AnswerHeads
from .relay import relay
from .sockets import accept_connections

#: Connections that are relayed at once; more of them wait in the kernel's queue.
CONNECTIONS = 512
#: Sockets that are open at once.
SOCKETS = 1024
BACKLOG = 512
_NAME = re.compile(r"[0-9a-f]{1,64}-[0-9]{1,5}", re.ASCII)


class _PortSocket:
    """One listening socket, and its connections."""

    def __init__(self, path: str, port: int, slots: asyncio.Semaphore, note: Callable[[str], None]) -> None:
        self._path = path
        self._port = port
        self._note = note
        self._connections = 0
        self._active_at = time.monotonic()
        self._listener = _listen(path)
        self._task = asyncio.create_task(accept_connections(self._listener, self._serve, slots))

    def describe(self) -> dict[str, Any]:
        idle = round(time.monotonic() - self._active_at, 3)
        return {"port": self._port, "connections": self._connections, "idle_seconds": idle}

    async def close(self) -> None:
        """Stop listening and end all connections."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._listener.close()

    async def _serve(self, accepted: socket.socket) -> None:
        self._connections += 1
        try:
            with await connect_to_app(self._port) as target:
                heads = AnswerHeads(self._note)

                def client_sent() -> None:
                    self._active_at = time.monotonic()
                    heads.expect()

                await relay(accepted, target, client_sent, heads.passed_on)
        except Refused:
            pass  # the proxy sees that the connection ends without an answer, and asks the service why
        finally:
            self._connections -= 1


class PortSockets:
    """All sockets to ports. Not thread-safe."""

    def __init__(self, folder: str, note: Callable[[str], None]) -> None:
        """`note` puts a line into the log of the app."""
        self._folder = folder
        self._note = note
        self._sockets: dict[str, _PortSocket] = {}
        self._slots = asyncio.Semaphore(CONNECTIONS)
        for left in glob.glob(os.path.join(glob.escape(folder), "port-*.sock")):
            os.unlink(left)

    async def change(self, opened: dict[str, int], closed: list[str]) -> dict[str, Any]:
        """Open and close sockets by name, and describe all that are open then. What is open or closed already is
        success. A port on which nothing listens gets no socket."""
        for name in closed:
            if (present := self._sockets.pop(name, None)) is not None:
                await present.close()
        for name, port in opened.items():
            if not _NAME.fullmatch(name) or not 0 < port < 65_536:
                raise bad_request(f"there is no socket {name} for port {port}")
            if name in self._sockets:
                continue
            if len(self._sockets) >= SOCKETS:
                raise Refused("agent_refused", f"there are {SOCKETS} sockets to ports already")
            try:
                (await connect_to_app(port)).close()
            except Refused:
                continue
            if name not in self._sockets:
                path = os.path.join(self._folder, f"port-{name}.sock")
                self._sockets[name] = _PortSocket(path, port, self._slots, self._note)
        return {name: each.describe() for name, each in self._sockets.items()}


def _listen(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
