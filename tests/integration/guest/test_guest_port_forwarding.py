"""Port forwarding. In these tests another address of the loopback stands for another container."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

import pytest

from sandbox.engine.guest_client.client import GuestClient
from sandbox.errors import GuestError
from sandbox.guest.port_forwarding import CONNECTIONS
from tests.integration.guest.running_guests import RunningGuest
from tests.ports import reserve_port

HERE, THERE = "127.0.0.1", "127.0.0.2"


@pytest.fixture
def port() -> int:
    return reserve_port()


@pytest.fixture(autouse=True)
async def nothing_forwarded(client: GuestClient) -> AsyncIterator[None]:
    yield
    assert await client.forward_ports({}) == {}


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write(b"the end")
        writer.close()


@contextlib.asynccontextmanager
async def serving(port: int, address: str = THERE) -> AsyncIterator[None]:
    server = await asyncio.start_server(echo, address, port)
    try:
        yield
    finally:
        server.close()


async def exchange(port: int, data: bytes, address: str = HERE) -> bytes:
    """Send the data and close that direction; everything that is received then."""
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def threads(guest: RunningGuest) -> int:
    return len(os.listdir(f"/proc/{guest.process.pid}/task"))


async def test_data_and_ends_are_forwarded(client: GuestClient, port: int) -> None:
    assert await client.forward_ports({port: THERE}) == {}
    async with serving(port):
        assert await exchange(port, b"hello") == b"hellothe end"
        data = os.urandom(8_000_000)
        assert await exchange(port, data) == data + b"the end"


async def test_the_ipv6_loopback_is_forwarded_too(client: GuestClient, port: int) -> None:
    await client.forward_ports({port: THERE})
    async with serving(port):
        assert await exchange(port, b"six", "::1") == b"sixthe end"


async def test_a_slow_reader_blocks_the_writer(client: GuestClient, port: int) -> None:
    await client.forward_ports({port: THERE})
    sent = 0

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(65_536))
                await writer.drain()
                sent += 65_536

    server = await asyncio.start_server(talk, THERE, port)
    with socket.create_connection((HERE, port)):
        before = 0
        while not 0 < before == sent:
            before = sent
            await asyncio.sleep(0.3)
        assert sent < 32_000_000
    server.close()


async def test_a_target_that_does_not_listen_is_refused_at_once(client: GuestClient, port: int) -> None:
    assert await client.forward_ports({port: THERE}) == {}
    assert port not in await client.listening_ports()
    with pytest.raises(ConnectionResetError):
        await exchange(port, b"lost")
    async with serving(port):
        assert await exchange(port, b"now") == b"nowthe end"


async def test_a_port_in_use_is_not_forwarded(client: GuestClient, port: int) -> None:
    for address in (HERE, "0.0.0.0"):
        async with serving(port, address):
            assert list(await client.forward_ports({port: THERE})) == [port]
            assert await exchange(port, b"mine") == b"minethe end"
        assert await client.forward_ports({port: THERE}) == {}
        assert await client.forward_ports({}) == {}


async def test_an_unknown_host_is_reported(client: GuestClient, port: int) -> None:
    refused = await client.forward_ports({port: "nobody.invalid"})
    assert list(refused) == [port]
    assert refused[port]


async def test_the_end_of_forwarding_frees_the_port_and_resets_connections(client: GuestClient, port: int) -> None:
    async with serving(port):
        await client.forward_ports({port: THERE})
        reader, writer = await asyncio.open_connection(HERE, port)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        # The same again changes nothing.
        await client.forward_ports({port: THERE})
        writer.write(b"b")
        assert await reader.readexactly(1) == b"b"
        await client.forward_ports({})
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        async with serving(port, HERE):
            assert await exchange(port, b"free") == b"freethe end"


async def test_many_connections_take_no_threads_and_wait_for_a_slot(
    client: GuestClient, running_guest: RunningGuest, port: int
) -> None:
    await client.forward_ports({port: THERE})
    before = threads(running_guest)
    async with serving(port):
        connections = [await asyncio.open_connection(HERE, port) for _ in range(CONNECTIONS + 20)]
        for _, writer in connections:
            writer.write(b"x")
        for reader, _ in connections[:CONNECTIONS]:
            assert await reader.readexactly(1) == b"x"
        assert threads(running_guest) == before
        last = asyncio.create_task(connections[-1][0].readexactly(1))
        assert await asyncio.wait({last}, timeout=0.3) == (set(), {last})
        for reader, writer in connections[:20]:
            writer.write_eof()
            assert await reader.read() == b"the end"
            writer.close()
        assert await last == b"x"
        for _, writer in connections[20:]:
            writer.close()


async def test_an_own_port_on_which_nothing_listens_is_not_forwarded(client: GuestClient, port: int) -> None:
    assert await client.forward_ports({}, own=port) == {}
    async with serving(port, "0.0.0.0"):
        assert await exchange(port, b"free") == b"freethe end"


async def test_invalid_ports_are_refused(client: GuestClient) -> None:
    for ports in ({0: THERE}, {70_000: THERE}):
        with pytest.raises(GuestError) as refused:
            await client.forward_ports(ports)
        assert refused.value.code == "agent_refused"


async def test_a_port_that_is_open_to_others_is_closed_for_tunnels_once_its_app_is_gone(
    client: GuestClient, port: int
) -> None:
    async with serving(port, HERE):
        assert await client.forward_ports({}, own=port) == {}
        (await client.tunnel(port)).close()
    with pytest.raises(GuestError) as caught:
        await client.tunnel(port)
    assert caught.value.code == "port_not_open"
