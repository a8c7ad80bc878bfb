"""How the service connects to the guest agents: through a socket in a folder that host and container share, or else
through the engine's exec."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal
from uuid import UUID

from sandbox.engine import labels
from sandbox.engine.docker.calls import DockerCalls
from sandbox.engine.docker.exec_connector import ExecConnector
from sandbox.engine.docker.socket_folders import SocketFolders
from sandbox.engine.guest_client.http import Connector, UnixConnector
from sandbox.errors import GuestError

#: A guest agent listens after about 50 ms. A socket that is still missing after this time is assumed not to be shared.
_SOCKET_TIMEOUT_SECONDS = 2.0
_PROBE_SECONDS = 5.0
#: Any response shows that the guest agent is reached.
_PROBE = b"GET / HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n"


class GuestTransport:
    """Decides once how this engine's guest agents are reached, and creates their connectors.

    Mode `auto` uses shared sockets if the engine is local and runs containers as this machine's root, and the service
    is root, too. If a socket nevertheless does not appear, the connector falls back to exec as soon as exec works.
    """

    def __init__(
        self,
        mode: Literal["auto", "socket", "exec"],
        calls: DockerCalls,
        folders: SocketFolders,
        oci_runtime: str | None,
    ) -> None:
        self._mode = mode
        self._calls = calls
        self._folders = folders
        self._oci_runtime = oci_runtime
        self._shares: bool | None = None

    async def shares_sockets(self) -> bool:
        """Return whether containers get a folder of this host for the socket. Asks the engine at the first call."""
        if self._shares is None:
            self._shares = self._mode == "socket" or (self._mode == "auto" and await self._can_share())
        return self._shares

    def fall_back_to_exec(self) -> bool:
        """Use exec from now on, because the engine cannot access this process's folders.

        That is so if the service itself runs in a container. Returns False if the mode allows only sockets.
        """
        if self._mode == "socket":
            return False
        self._shares = False
        return True

    def connector(self, session_id: UUID, role: str) -> Connector:
        """Return the connector to one guest agent. Does no I/O."""
        by_exec = ExecConnector(self._calls, labels.container_name(session_id, role))
        by_socket = UnixConnector(self._folders.socket(session_id, role))
        if self._mode == "exec":
            return by_exec
        if self._mode == "socket":
            return by_socket
        return AutoConnector(by_socket, by_exec, self.shares_sockets)

    async def _can_share(self) -> bool:
        if not self._calls.local or os.geteuid() != 0 or (self._oci_runtime or "").startswith("runsc"):
            return False
        found: dict[str, Any] = await self._calls.call(lambda client: client.info())
        options = " ".join(found.get("SecurityOptions") or [])
        return not any(option in options for option in ("name=userns", "name=rootless")) and "Desktop" not in str(
            found.get("OperatingSystem")
        )


class AutoConnector:
    """Connects through the shared socket, or through exec if there is none. Keeps to the first way that works."""

    def __init__(self, by_socket: Connector, by_exec: Connector, shares_sockets: Callable[[], Awaitable[bool]]) -> None:
        self._by_socket = by_socket
        self._by_exec = by_exec
        self._shares_sockets = shares_sockets
        self._chosen: Connector | None = None
        self._first_tried: float | None = None

    async def __call__(self) -> socket.socket:
        if self._chosen is None and not await self._shares_sockets():
            self._chosen = self._by_exec
        if self._chosen is not None:
            return await self._chosen()
        if self._first_tried is None:
            self._first_tried = time.monotonic()
        try:
            connection = await self._by_socket()
        except OSError:
            if time.monotonic() - self._first_tried < _SOCKET_TIMEOUT_SECONDS or not await self._answers_by_exec():
                raise
            return await self._choose()
        self._chosen = self._by_socket
        return connection

    async def _choose(self) -> socket.socket:
        """Connect to a guest agent that is known to run: if its socket exists by now, it only started late."""
        try:
            connection = await self._by_socket()
        except OSError:
            self._chosen = self._by_exec
            return await self._by_exec()
        self._chosen = self._by_socket
        return connection

    async def _answers_by_exec(self) -> bool:
        try:
            connection = await self._by_exec()
        except GuestError:
            return False
        loop = asyncio.get_running_loop()
        with connection:
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    await loop.sock_sendall(connection, _PROBE)
                    return await loop.sock_recv(connection, 1) != b""
            except OSError:  # This includes TimeoutError.
                return False
