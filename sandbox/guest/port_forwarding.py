"""Ports of other roles on this container's localhost, where apps expect them that were written for a single machine.
And the reverse: an app that listens on its own localhost only is made reachable for the other roles.

The forwarded connections are bounded; more of them wait in the kernel's queue.

A port on which something in the container already listens is left alone. A program that wants to listen on a forwarded
port finds it in use: the kernel lets two users listen on one port under no option. So forwarding begins late in a
launch, and ends before an app is restarted.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterable
from typing import Any

from .errors import Refused
from .relay import relay
from .sockets import accept_connections, reset
from .stats import listens_on_loopback_only
from .tunnel import CONNECT_SECONDS, LOOPBACK, connect_to_address, connect_to_loopback

#: Connections that are forwarded at once.
CONNECTIONS = 256
BACKLOG = 128
#: A peer that is gone without closing is noticed after some 90 seconds of silence.
KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

#: Address family and socket address.
Address = tuple[int, Any]
#: Address family and host.
Host = tuple[int, str]


class _Forward:
    """A port of this container whose connections go elsewhere: to another container, or to this one's own app."""

    def __init__(self, host: str, address: Address, listeners: list[socket.socket], slots: asyncio.Semaphore) -> None:
        #: The target; "" is this container's own loopback.
        self.host = host
        self.address = address
        self._listeners = listeners
        self._tasks = [asyncio.create_task(accept_connections(each, self._serve, slots)) for each in listeners]

    async def close(self) -> None:
        """Stop listening and reset all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()

    async def _serve(self, accepted: socket.socket) -> None:
        family, address = self.address
        clean = False
        target = None
        try:
            target = socket.socket(family, socket.SOCK_STREAM)
            for sock in (accepted, target):
                _prepare(sock)
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(target, address)
            clean = await relay(accepted, target)
        except OSError:  # a timeout among them
            pass
        finally:
            for each in (accepted, target):
                if each is not None:
                    each.close() if clean else reset(each)


class PortForwarder:
    """All forwarded ports. Not thread-safe."""

    def __init__(self, connections: int = CONNECTIONS) -> None:
        self._lock = asyncio.Lock()
        self._slots = asyncio.Semaphore(connections)
        self._forwards: dict[int, _Forward] = {}

    async def forward(
        self, hosts: dict[int, str], own: int | None = None, planned: int | None = None
    ) -> dict[int, str]:
        """Forward these ports of the container's localhost to the same ports of these hosts, and no others.

        The port `own` of this container's app is made reachable for other containers even if the app listens on the
        loopback only. The port `planned`, under which they expect the app, leads to it as well. Connections of ports
        that are forwarded elsewhere now, or no longer, are reset. Returns the reason for each port that could not be
        forwarded, once all others are.
        """
        refused: dict[int, str] = {}
        requested = hosts if own is None else hosts | {own: ""}
        if own is not None and planned is not None:
            requested = {planned: ""} | requested
        async with self._lock:
            for port in [port for port, forward in self._forwards.items() if requested.get(port) != forward.host]:
                await self._forwards.pop(port).close()
            for port, host in requested.items():
                try:
                    await self._open(port, host, port if host or own is None else own)
                except OSError as error:
                    refused[port] = error.strerror or str(error)
                except Refused as error:
                    refused[port] = error.message
                except RuntimeError:  # no thread for the resolver
                    refused[port] = "the container is at its limit of processes"
        return refused

    async def _open(self, port: int, host: str, target_port: int) -> None:
        target: Address
        places: Iterable[Host]
        if host:
            loop = asyncio.get_running_loop()
            family, _, _, _, address = (await loop.getaddrinfo(host, target_port, type=socket.SOCK_STREAM))[0]
            target, places = (family, address), LOOPBACK
        elif port != target_port or listens_on_loopback_only(port):
            places = await own_addresses()
            target = await _address_of(target_port, places)
        else:
            return
        present = self._forwards.get(port)
        if present is not None:
            present.address = target
        else:
            self._forwards[port] = _Forward(host, target, _listen(places, port), self._slots)


async def _address_of(port: int, own: Iterable[Host]) -> Address:
    """The address of this container on which something listens on this port, a loopback address if there is one."""
    try:
        with await connect_to_loopback(port) as probe:
            return probe.family, probe.getpeername()
    except Refused:
        for family, address in own:
            with contextlib.suppress(OSError), await connect_to_address(family, address, port) as probe:
                return probe.family, probe.getpeername()
        raise


async def own_addresses() -> list[Host]:
    """The addresses of this container that other containers reach."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    return [(family, str(address[0])) for family, _, _, _, address in found if (family, address[0]) not in LOOPBACK]


def _listen(places: Iterable[Host], port: int) -> list[socket.socket]:
    """Listening sockets on those of these addresses that exist. Raises OSError if the port is in use on one of them."""
    listeners: list[socket.socket] = []
    try:
        for family, address in places:
            try:
                listeners.append(_listener(family, address, port))
            except OSError as error:
                if error.errno not in _NO_SUCH_FAMILY:
                    raise
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _listener(family: int, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Earlier connections may linger. A port on which something listens is refused all the same.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
