"""Connections to ports of the container's loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from .errors import Refused

CONNECT_SECONDS = 5.0
LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


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
