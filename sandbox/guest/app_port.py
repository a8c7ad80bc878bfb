"""Connections to the ports of the container's apps, on whichever of the container's addresses they listen."""

from __future__ import annotations

import contextlib
import socket

from .errors import Refused, bad_request
from .port_forwarding import own_addresses
from .relay import relay
from .request import Request
from .sockets import send
from .stats import listening_ports
from .tunnel import connect_to_address, connect_to_loopback


async def open_tunnel(request: Request) -> None:
    """Serve `CONNECT 127.0.0.1:PORT`. Raises Refused `port_not_open` if nothing listens there."""
    host, _, port = request.http.target.rpartition(":")
    if host != "127.0.0.1" or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise bad_request(f"a tunnel goes to 127.0.0.1 and a port, not to {request.http.target}")
    with await connect_to_app(int(port)) as target:
        await request.switch(200)
        if first := request.connection.take_read_ahead():
            await send(target, first)
        await relay(request.connection.sock, target)


async def connect_to_app(port: int) -> socket.socket:
    """A connection to the port on 127.0.0.1, else ::1, else an address of the container. Raises Refused
    `port_not_open` if no app listens on any of them."""
    try:
        return await connect_to_loopback(port)
    except Refused:
        # The guest agent itself may listen there, to lead other containers to the loopback.
        if port not in listening_ports():
            raise
        for family, address in await own_addresses():
            with contextlib.suppress(OSError):
                return await connect_to_address(family, address, port)
        raise
