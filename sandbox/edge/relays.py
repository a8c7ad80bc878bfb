"""Sockets that the service keeps itself: for containers whose guest agent has none that the edge can reach (the engine
shares no folders with this host, or the guest agent is of an earlier release), and for apps that speak TLS, which the
edge does not. They end with the service."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from pathlib import Path

from sandbox.edge.folder import bind_socket
from sandbox.engine.guest import Guest
from sandbox.engine.guest_data import PortSocket
from sandbox.errors import GuestError
from sandbox.launch.http_probe import any_certificate

_PIECE = 64 * 1024


class Relays:
    """Listening sockets by name, each of which leads through the tunnel of a guest agent. Used from one event loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._relays: dict[str, _Relay] = {}

    async def open(self, name: str, guest: Guest, port: int, *, tls: bool = False) -> Path:
        """The socket of that name, made if absent. With `tls` it connects to the app with TLS.

        Raises GuestError if nothing listens on the port.
        """
        path = self._folder / f"{name}.sock"
        if name not in self._relays:
            (await guest.tunnel(port)).close()
            relay = _Relay(guest, port, any_certificate() if tls else None)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            await relay.start(bind_socket(path))
            self._relays[name] = relay
        return path

    def describe(self, name: str) -> PortSocket | None:
        relay = self._relays.get(name)
        return relay.describe() if relay is not None else None

    async def close(self, name: str) -> None:
        """Close the socket and end its connections; absent already is success."""
        relay = self._relays.pop(name, None)
        if relay is not None:
            (self._folder / f"{name}.sock").unlink(missing_ok=True)
            await relay.close()

    async def aclose(self) -> None:
        for name in list(self._relays):
            await self.close(name)


class _Relay:
    def __init__(self, guest: Guest, port: int, tls: ssl.SSLContext | None) -> None:
        self._guest = guest
        self._port = port
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._active_at = time.monotonic()

    async def start(self, listener: socket.socket) -> None:
        self._server = await asyncio.start_unix_server(self._accept, sock=listener)

    def describe(self) -> PortSocket:
        return PortSocket(self._port, len(self._connections), time.monotonic() - self._active_at)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name=f"relay to port {self._port}")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(GuestError, OSError), contextlib.closing(writer):
            sock = await self._guest.tunnel(self._port)
            name = "localhost" if self._tls is not None else None
            app_reader, app_writer = await asyncio.open_connection(sock=sock, ssl=self._tls, server_hostname=name)
            with contextlib.closing(app_writer):
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._copy(reader, app_writer, note_use=True))
                    group.create_task(self._copy(app_reader, writer, note_use=False))

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, note_use: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_PIECE):
                if note_use:
                    self._active_at = time.monotonic()
                target.write(data)
                await target.drain()
        with contextlib.suppress(OSError):
            if target.can_write_eof():
                target.write_eof()
            else:  # TLS has no half-closed connections
                target.close()
