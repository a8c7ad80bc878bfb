"""How the service reaches the guest agents: a socket in a folder shared by host and container, else the engine's
exec."""

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

#: A guest agent takes some 50 ms to listen; a socket absent for this long is taken for one that is not shared.
_PATIENCE_SECONDS = 2.0
_PROBE_SECONDS = 5.0
#: Any answer will do.
_PROBE = b"GET / HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n"


class GuestTransport:
    """Decides once how this engine's guest agents are reached, and makes their connectors.

    `auto` shares sockets with a local engine that runs containers as this machine's root, if the service is root too;
    and where the socket does not show up although it should, a connector goes over to exec once that is seen to work.
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
        """Whether containers get a folder of this host for the guest agent's socket. Asks the engine once."""
        if self._shares is None:
            self._shares = self._mode == "socket" or (self._mode == "auto" and await self._can_share())
        return self._shares

    def cannot_share(self) -> bool:
        """The engine does not see our folders (the service runs in a container itself): from now on, exec. False if
        the setting allows nothing but sockets."""
        if self._mode == "socket":
            return False
        self._shares = False
        return True

    def connector(self, session_id: UUID, role: str) -> Connector:
        bridge = ExecConnector(self._calls, labels.container_name(session_id, role))
        folder = UnixConnector(self._folders.socket(session_id, role))
        if self._mode == "exec":
            return bridge
        if self._mode == "socket":
            return folder
        return AutoConnector(folder, bridge, self.shares_sockets)

    async def _can_share(self) -> bool:
        if not self._calls.local or os.geteuid() != 0 or (self._oci_runtime or "").startswith("runsc"):
            return False
        found: dict[str, Any] = await self._calls.call(lambda client: client.info())
        options = " ".join(found.get("SecurityOptions") or [])
        return not any(mark in options for mark in ("name=userns", "name=rootless")) and "Desktop" not in str(
            found.get("OperatingSystem")
        )


class AutoConnector:
    """The shared socket, or exec where there is none; settled by the first that a guest agent answers on."""

    def __init__(self, folder: Connector, bridge: Connector, shares_sockets: Callable[[], Awaitable[bool]]) -> None:
        self._folder = folder
        self._bridge = bridge
        self._shares_sockets = shares_sockets
        self._settled: Connector | None = None
        self._first_tried: float | None = None

    async def __call__(self) -> socket.socket:
        if self._settled is None and not await self._shares_sockets():
            self._settled = self._bridge
        if self._settled is not None:
            return await self._settled()
        if self._first_tried is None:
            self._first_tried = time.monotonic()
        try:
            connection = await self._folder()
        except OSError:
            if time.monotonic() - self._first_tried < _PATIENCE_SECONDS or not await self._answers_by_exec():
                raise
            return await self._settle()
        self._settled = self._folder
        return connection

    async def _settle(self) -> socket.socket:
        """The guest agent is up: if its socket is there now, it was only late."""
        try:
            connection = await self._folder()
        except OSError:
            self._settled = self._bridge
            return await self._bridge()
        self._settled = self._folder
        return connection

    async def _answers_by_exec(self) -> bool:
        try:
            connection = await self._bridge()
        except GuestError:
            return False
        loop = asyncio.get_running_loop()
        with connection:
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    await loop.sock_sendall(connection, _PROBE)
                    return await loop.sock_recv(connection, 1) != b""
            except OSError:  # a timeout among them
                return False
