"""The other roles' ports on the container's localhost. Another container is another address of the loopback here."""

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
from tests.integration.guest.running_guests import RunningAgent

HERE, THERE = "127.0.0.1", "127.0.0.2"


@pytest.fixture
def port() -> int:
    """One that is free on every address."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
async def parted(client: GuestClient) -> AsyncIterator[None]:
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


async def asked(port: int, said: bytes, address: str = HERE) -> bytes:
    """All that is answered to what is said, whose end is told first."""
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(said)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def threads(guest: RunningAgent) -> int:
    return len(os.listdir(f"/proc/{guest.process.pid}/task"))


async def test_a_port_leads_to_the_other_host_and_ends_are_passed_on(client: GuestClient, port: int) -> None:
    assert await client.forward_ports({port: THERE}) == {}
    async with serving(port):
        assert await asked(port, b"hello") == b"hellothe end"
        data = os.urandom(8_000_000)
        assert await asked(port, data) == data + b"the end"


async def test_localhost_is_also_the_other_loopback_address(client: GuestClient, port: int) -> None:
    await client.forward_ports({port: THERE})
    async with serving(port):
        assert await asked(port, b"six", "::1") == b"sixthe end"


async def test_a_slow_reader_holds_its_writer_up(client: GuestClient, port: int) -> None:
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
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.3)
        assert 0 < sent < 32_000_000
    server.close()


async def test_what_is_not_up_is_refused_at_once(client: GuestClient, port: int) -> None:
    assert await client.forward_ports({port: THERE}) == {}
    assert port not in await client.listening_ports()
    with pytest.raises(ConnectionResetError):
        await asked(port, b"anybody?")
    async with serving(port):
        assert await asked(port, b"now") == b"nowthe end"


async def test_a_port_in_use_is_left_to_its_user(client: GuestClient, port: int) -> None:
    for address in (HERE, "0.0.0.0"):
        async with serving(port, address):
            assert list(await client.forward_ports({port: THERE})) == [port]
            assert await asked(port, b"mine") == b"minethe end"
        assert await client.forward_ports({port: THERE}) == {}
        assert await client.forward_ports({}) == {}


async def test_a_host_that_is_not_known_is_said(client: GuestClient, port: int) -> None:
    refused = await client.forward_ports({port: "nobody.invalid"})
    assert list(refused) == [port]
    assert refused[port]


async def test_parting_frees_the_port_and_breaks_what_went_through(client: GuestClient, port: int) -> None:
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
            assert await asked(port, b"free") == b"freethe end"


async def test_a_crowd_takes_no_threads_and_waits_for_its_turn(
    client: GuestClient, running_agent: RunningAgent, port: int
) -> None:
    await client.forward_ports({port: THERE})
    before = threads(running_agent)
    async with serving(port):
        crowd = [await asyncio.open_connection(HERE, port) for _ in range(CONNECTIONS + 20)]
        for _, writer in crowd:
            writer.write(b"x")
        for reader, _ in crowd[:CONNECTIONS]:
            assert await reader.readexactly(1) == b"x"
        assert threads(running_agent) == before
        last = asyncio.create_task(crowd[-1][0].readexactly(1))
        assert await asyncio.wait({last}, timeout=0.3) == (set(), {last})
        for reader, writer in crowd[:20]:
            writer.write_eof()
            assert await reader.read() == b"the end"
            writer.close()
        assert await last == b"x"
        for _, writer in crowd[20:]:
            writer.close()


async def test_an_app_that_listens_nowhere_yet_is_opened_to_nobody(client: GuestClient, port: int) -> None:
    assert await client.forward_ports({}, own=port) == {}
    async with serving(port, "0.0.0.0"):
        assert await asked(port, b"free") == b"freethe end"


async def test_nonsense_is_refused(client: GuestClient) -> None:
    for ports in ({0: THERE}, {70_000: THERE}):
        with pytest.raises(GuestError) as refused:
            await client.forward_ports(ports)
        assert refused.value.code == "agent_refused"
