"""Waiting for sockets and pipes on the event loop.

Plain non-blocking sockets with the loop's `sock_*` methods instead of asyncio's streams: a stream reads ahead on its
own, whereas here the end of a connection must be noticed while a request is being worked on, and nothing may be read
before there is room for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any, NoReturn

#: Most that is read at once: as much as a unix socket holds.
PIECE = 256 * 1024
#: Pause after a connection could not be accepted for lack of memory or file descriptors.
_ACCEPT_PAUSE_SECONDS = 0.05
#: SO_LINGER on, zero seconds: closing the socket resets the connection.
_LINGER_RESET = struct.pack("ii", 1, 0)


async def receive(sock: socket.socket, limit: int = PIECE) -> bytes:
    """Up to `limit` bytes, b"" at the end. Other tasks always run meanwhile, so that a peer that sends without a pause
    cannot starve them. Cancelling may lose data."""
    try:
        data = sock.recv(limit)
    except BlockingIOError:
        return await asyncio.get_running_loop().sock_recv(sock, limit)
    await asyncio.sleep(0)
    return data


async def send(sock: socket.socket, *parts: bytes | bytearray) -> None:
    """Send all of it. Cancelling leaves an unknown part of it sent."""
    await asyncio.get_running_loop().sock_sendall(sock, parts[0] if len(parts) == 1 else b"".join(parts))


@contextlib.contextmanager
def readable(fd: int) -> Iterator[asyncio.Future[None]]:
    """A future that is done when there is something to read or the other end is closed."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.add_reader(fd, _set_done, future)
    try:
        yield future
    finally:
        loop.remove_reader(fd)


@contextlib.contextmanager
def writable(fd: int) -> Iterator[asyncio.Future[None]]:
    """A future that is done when something can be written or the other end is closed."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.add_writer(fd, _set_done, future)
    try:
        yield future
    finally:
        loop.remove_writer(fd)


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def accept_connections(
    listener: socket.socket,
    serve: Callable[[socket.socket], Coroutine[Any, Any, None]],
    slots: asyncio.Semaphore | None = None,
) -> NoReturn:
    """Accept connections until cancelled and serve each in a task of its own, which closes it.

    `slots` bounds how many connections are served at once, over all listeners that share it; more connections wait in
    the kernel's queue. When cancelled, the connections that are being served are cancelled too.
    """
    async with asyncio.TaskGroup() as tasks:
        while True:
            with readable(listener.fileno()) as ready:
                await ready
            if slots is not None:
                await slots.acquire()
            try:
                sock, _ = listener.accept()
            except OSError as error:
                if slots is not None:
                    slots.release()
                if not isinstance(error, BlockingIOError):
                    await asyncio.sleep(_ACCEPT_PAUSE_SECONDS)
                continue
            sock.setblocking(False)
            task = tasks.create_task(_serve(sock, serve))
            # Not in the task itself: one that is cancelled before its first step runs nothing.
            task.add_done_callback(partial(_release, sock, slots))


async def _serve(sock: socket.socket, serve: Callable[[socket.socket], Coroutine[Any, Any, None]]) -> None:
    try:
        await serve(sock)
    except Exception:  # noqa: BLE001 - a bug ends this connection and no other
        sys.excepthook(*sys.exc_info())


def _release(sock: socket.socket, slots: asyncio.Semaphore | None, _task: asyncio.Task[None]) -> None:
    sock.close()
    if slots is not None:
        slots.release()


def reset(sock: socket.socket) -> None:
    """Close the TCP connection with a reset, as a port does on which nothing listens."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    sock.close()
