"""HTTP connections to apps through the tunnels of guest agents. They are pooled and counted per session."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import httpcore

from sandbox.engine.guest import Guest
from sandbox.engine.guest_client.socket_stream import ConnectBackend
from sandbox.errors import GuestError, Kind, SandboxError
from sandbox.preview.target import PreviewResolver


class TooManyConnections(SandboxError):
    """One session's preview has as many requests and WebSockets open as it may."""

    code = "too_many_connections"
    kind = Kind.TOO_MANY


class TunnelOpener:
    """Opens tunnels to the ports of one session."""

    def __init__(self, resolver: PreviewResolver, session_id: UUID, timeout_seconds: float) -> None:
        self._resolver = resolver
        self._session_id = session_id
        self._timeout = timeout_seconds

    async def __call__(self, roles: tuple[str, ...], port: int) -> socket.socket:
        """A connected socket to the port, in the first of the roles where something listens on it.

        Raises GuestError: `port_not_open` if nothing does, `agent_unreachable` if a guest agent does not answer in
        time.
        """
        failure = GuestError(f"nothing listens on port {port}", code="port_not_open")
        for role in roles:
            try:
                return await self._open(self._resolver.guest(self._session_id, role), role, port)
            except GuestError as error:
                # A closed port says less than a guest agent that cannot be asked: the app may well be in that
                # container.
                if failure.code == "port_not_open":
                    failure = error
        raise failure

    async def _open(self, guest: Guest, role: str, port: int) -> socket.socket:
        try:
            async with asyncio.timeout(self._timeout):
                return await guest.tunnel(port)
        except TimeoutError as error:
            raise GuestError(
                f"the container of role {role} gave no connection to port {port} within {self._timeout:g} s",
                code="agent_unreachable",
            ) from error


class Channel:
    """One session's connections: a pool for HTTP, an opener for WebSockets, and a count over both."""

    def __init__(self, opener: TunnelOpener, max_connections: int, keepalive_seconds: float) -> None:
        self.open_tunnel = opener
        self.pool = httpcore.AsyncConnectionPool(
            max_connections=max_connections,
            max_keepalive_connections=max_connections // 4,
            keepalive_expiry=keepalive_seconds,
            # The "host" of a URL is the roles to try, joined by dots (the name of a role has none).
            network_backend=ConnectBackend(lambda host, port: opener(tuple(host.split(".")), port)),
        )
        self.active = 0
        self.idle_timer: asyncio.TimerHandle | None = None


class Channels:
    """The channels of all sessions with open previews. Not thread-safe."""

    def __init__(
        self,
        resolver: PreviewResolver,
        *,
        max_connections: int,
        connect_timeout_seconds: float,
        keepalive_seconds: float,
    ) -> None:
        self._resolver = resolver
        self._max_connections = max_connections
        self._connect_timeout = connect_timeout_seconds
        self._keepalive = keepalive_seconds
        self._channels: dict[UUID, Channel] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def use(self, session_id: UUID) -> AsyncIterator[Channel]:
        """The session's channel, for one request or WebSocket. Raises TooManyConnections when all are in use.

        The last one out starts the clock; a channel unused for the keep-alive time is closed with its connections.
        """
        channel = self._channels.get(session_id)
        if channel is None:
            opener = TunnelOpener(self._resolver, session_id, self._connect_timeout)
            channel = self._channels[session_id] = Channel(opener, self._max_connections, self._keepalive)
        if channel.active >= self._max_connections:
            raise TooManyConnections(
                f"this preview has {self._max_connections} connections open, which is all it may have",
                hint="Close other tabs and streams of this session, then try again.",
            )
        if channel.idle_timer:
            channel.idle_timer.cancel()
        channel.active += 1
        try:
            yield channel
        finally:
            channel.active -= 1
            if channel.active == 0 and self._channels.get(session_id) is channel:
                loop = asyncio.get_running_loop()
                channel.idle_timer = loop.call_later(self._keepalive, self._evict, session_id)

    @property
    def open_sessions(self) -> int:
        """How many sessions have a channel now."""
        return len(self._channels)

    async def aclose(self) -> None:
        """Close every connection. Those in use end with an error."""
        for session_id in list(self._channels):
            self._evict(session_id)
        await asyncio.gather(*self._closing)

    def _evict(self, session_id: UUID) -> None:
        channel = self._channels.pop(session_id)
        if channel.idle_timer:
            channel.idle_timer.cancel()
        task = asyncio.create_task(channel.pool.aclose(), name=f"close preview channel {session_id}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
