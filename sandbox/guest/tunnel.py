"""Connections to ports of the container's loopback, and copying bytes between two connections."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable

from .errors import Refused
from .sockets import receive, send

CONNECT_SECONDS = 5.0
LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
#: After one side has ended and the other has been silent for this long, the connection is considered dead.
HALF_CLOSED_SECONDS = 300.0


async def connect_to_loopback(port: int) -> socket.socket:
    """A connection to 127.0.0.1, else to ::1. Raises Refused `port_not_open` if nothing listens on either."""
    for family, address in LOOPBACK:
        with contextlib.suppress(OSError):
            return await connect_to_address(family, address, port)
    raise Refused("port_not_open", f"nothing listens on port {port} of the container's loopback", 404)


async def connect_to_address(family: int, address: str, port: int) -> socket.socket:
    """A TCP connection. Raises OSError; after `CONNECT_SECONDS` TimeoutError, which is one."""
    target = socket.socket(family, socket.SOCK_STREAM)
    try:
        target.setblocking(False)
        target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(target, (address, port))
    except BaseException:
        target.close()
        raise
    return target


async def relay(one: socket.socket, other: socket.socket, note_use: Callable[[], None] | None = None) -> bool:
    """Copy both ways until both sides have ended; each end is passed on when it comes. `note_use` is called when `one`
    has sent something.

    False if a side broke, closed both directions at once, or was silent for too long after the other had ended.
    """
    loop = asyncio.get_running_loop()
    copies = [_Copy(one, other, note_use), _Copy(other, one)]
    tasks = [loop.create_task(copy.run()) for copy in copies]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task, rest, copy in zip(tasks, reversed(tasks), copies, strict=True):
            if task.done() and not rest.done():
                if not task.result() or _closed(copy.source):
                    return False
                return await _finish(rest, copies)
        return all(task.result() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _finish(task: asyncio.Task[bool], copies: list[_Copy]) -> bool:
    """Wait for the second direction of a relay, as long as there is something to copy."""
    loop = asyncio.get_running_loop()
    while not task.done():
        silent_since = max(copy.active_at for copy in copies)
        wait = silent_since + HALF_CLOSED_SECONDS - loop.time()
        if wait <= 0:
            return False
        await asyncio.wait({task}, timeout=wait)
    return task.result()


class _Copy:
    """One direction of a relay."""

    def __init__(
        self, source: socket.socket, target: socket.socket, note_use: Callable[[], None] | None = None
    ) -> None:
        self.source = source
        self._target = target
        self._note_use = note_use
        self._loop = asyncio.get_running_loop()
        #: When it last copied something or the end, by the loop's clock.
        self.active_at = self._loop.time()

    async def run(self) -> bool:
        """Copy to the end of the source and pass that on. False if a side broke."""
        try:
            while data := await receive(self.source):
                if self._note_use is not None:
                    self._note_use()
                await send(self._target, data)
                self.active_at = self._loop.time()
            self._target.shutdown(socket.SHUT_WR)
            self.active_at = self._loop.time()
        except OSError:
            return False
        return True


def _closed(sock: socket.socket) -> bool:
    """Whether the peer has closed both directions, not only its own."""
    poller = select.poll()
    poller.register(sock, 0)
    return bool(poller.poll(0))
