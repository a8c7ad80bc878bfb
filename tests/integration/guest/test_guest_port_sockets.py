"""Unix sockets of the guest agent that lead to ports of apps."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.engine.guest_client.client import GuestClient
from sandbox.errors import GuestError
from tests.integration.guest.running_guests import RunningGuest

NAME = "0123abcd-1"


async def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, str(path))
    return sock


@pytest.fixture(params=["127.0.0.1", "::1", "own address"])
async def app(request: pytest.FixtureRequest) -> AsyncIterator[int]:
    """An app that answers everything in capitals, on one address only."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data.upper())
        writer.close()

    host = request.param
    if host == "own address":
        host = socket.getaddrinfo(socket.gethostname(), None)[0][4][0]
    server = await asyncio.start_server(serve, host, 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_bytes_pass_to_the_app_on_any_address(running_guest: RunningGuest, client: GuestClient, app: int) -> None:
    opened = await client.port_sockets(opened={NAME: app})
    path = Path(running_guest.socket).parent / f"port-{NAME}.sock"
    assert opened[NAME].port == app
    assert path.stat().st_mode & 0o777 == 0o600
    loop = asyncio.get_running_loop()
    with await connect(path) as sock:
        await loop.sock_sendall(sock, b"hello")
        assert await loop.sock_recv(sock, 100) == b"HELLO"
        found = await client.port_sockets()
        assert found[NAME].connections == 1
        assert found[NAME].idle_seconds < 5
        assert NAME not in await client.port_sockets(closed=[NAME, "ff-2"])
        assert await loop.sock_recv(sock, 100) == b"", "closing a socket ends its connections"
    assert not path.exists()


async def test_a_port_on_which_nothing_listens_gets_no_socket(client: GuestClient) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert await client.port_sockets(opened={NAME: unused.getsockname()[1]}) == {}


async def test_a_connection_ends_once_the_app_has_ended(running_guest: RunningGuest, client: GuestClient) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        await client.port_sockets(opened={NAME: listener.getsockname()[1]})
    with await connect(Path(running_guest.socket).parent / f"port-{NAME}.sock") as sock:
        assert await asyncio.get_running_loop().sock_recv(sock, 100) == b""
    await client.port_sockets(closed=[NAME])


@pytest.mark.parametrize("name", ["../up-1", "a/b-1", "", "x-1"])
async def test_odd_names_are_refused(client: GuestClient, name: str) -> None:
    with pytest.raises(GuestError) as refusal:
        await client.port_sockets(opened={name: 80})
    assert refusal.value.code == "agent_refused"


async def test_a_tunnel_reaches_the_app_on_any_address(client: GuestClient, app: int) -> None:
    loop = asyncio.get_running_loop()
    with await client.tunnel(app) as sock:
        await loop.sock_sendall(sock, b"hello")
        assert await loop.sock_recv(sock, 100) == b"HELLO"
