"""httpcore streams over connected sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import httpcore
import pytest

from sandbox.engine.guest_client.socket_stream import ConnectBackend


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The peer's socket, and the one that the stream gets."""
    peer, ours = socket.socketpair()
    with peer, ours:
        peer.setblocking(False)
        ours.setblocking(False)
        yield peer, ours


async def connect(sock: socket.socket, coalesce_bytes: int = 0) -> httpcore.AsyncNetworkStream:
    async def connected(_host: str, _port: int) -> socket.socket:
        return sock

    return await ConnectBackend(connected, coalesce_bytes).connect_tcp("role", 80)


async def test_writes_are_sent_at_once_unless_they_are_coalesced(pair: tuple[socket.socket, socket.socket]) -> None:
    peer, ours = pair
    stream = await connect(ours)
    await stream.write(b"head")
    assert await asyncio.get_running_loop().sock_recv(peer, 100) == b"head"
    await stream.aclose()


async def test_coalesced_writes_are_sent_before_a_read_or_when_there_are_enough(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    peer, ours = pair
    loop = asyncio.get_running_loop()
    stream = await connect(ours, coalesce_bytes=10)
    await stream.write(b"head")
    with pytest.raises(BlockingIOError):
        peer.recv(100)
    await stream.write(b" body")
    peer.send(b"answer")
    assert await stream.read(100) == b"answer"
    assert peer.recv(100) == b"head body"
    await stream.write(b"0123456789")
    assert await loop.sock_recv(peer, 100) == b"0123456789"
    await stream.aclose()


async def test_timeouts_and_the_end_of_the_peer(pair: tuple[socket.socket, socket.socket]) -> None:
    peer, ours = pair
    stream = await connect(ours)
    with pytest.raises(httpcore.ReadTimeout):
        await stream.read(100, timeout=0.01)
    assert not stream.get_extra_info("is_readable")
    peer.close()
    assert stream.get_extra_info("is_readable")
    assert await stream.read(100) == b""
    await stream.aclose()


async def test_closing_ends_a_read_that_waits(pair: tuple[socket.socket, socket.socket]) -> None:
    peer, ours = pair
    stream = await connect(ours)
    reading = asyncio.create_task(stream.read(100))
    await asyncio.sleep(0.01)
    await stream.aclose()
    with pytest.raises(httpcore.ReadError):
        await asyncio.wait_for(reading, 5)
    assert peer.recv(1) == b""
