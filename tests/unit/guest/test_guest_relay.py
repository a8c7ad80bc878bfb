"""Copying bytes between two connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from sandbox.guest import relay as relay_module
from sandbox.guest.relay import relay
from sandbox.guest.sockets import reset


@dataclass
class Ends:
    """The far ends of two connections that a relay joins."""

    one: socket.socket
    other: socket.socket
    relayed: asyncio.Task[bool]
    used: list[int]


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    for each in (one, other):
        each.setblocking(False)
    return one, other


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    (one, near_one), (other, near_other) = _tcp_pair(), _tcp_pair()
    used: list[int] = []
    task = asyncio.create_task(relay(near_one, near_other, lambda: used.append(1)))
    await asyncio.sleep(0)
    yield Ends(one, other, task, used)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for each in (one, near_one, other, near_other):
        each.close()


async def _read_all(sock: socket.socket) -> bytes:
    data = b""
    while piece := await asyncio.get_running_loop().sock_recv(sock, 1 << 20):
        data += piece
    return data


async def test_both_ways_and_each_end_is_passed_on(ends: Ends) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(ends.other, b"answer")
    assert await loop.sock_recv(ends.one, 100) == b"answer"
    assert ends.used == [], "only what the first side sends counts as use"
    await loop.sock_sendall(ends.one, b"question")
    assert await loop.sock_recv(ends.other, 100) == b"question"
    assert ends.used == [1]
    ends.one.shutdown(socket.SHUT_WR)
    assert await loop.sock_recv(ends.other, 100) == b""
    await loop.sock_sendall(ends.other, b"more")
    ends.other.close()
    assert await _read_all(ends.one) == b"more"
    assert await asyncio.wait_for(ends.relayed, 30)


async def test_what_the_target_does_not_take_waits_at_the_source(ends: Ends) -> None:
    """Nothing is lost, and no more is read than the sockets and one buffer hold."""
    loop = asyncio.get_running_loop()
    data = bytes(range(256)) * 4 * 40_000
    sending = asyncio.create_task(loop.sock_sendall(ends.one, data))
    await asyncio.sleep(0.2)
    assert not sending.done(), "the sender must be held up while the other side reads nothing"
    received = bytearray()
    while len(received) < len(data):
        received += await loop.sock_recv(ends.other, 1 << 20)
    await sending
    assert received == data


async def test_a_side_that_breaks_ends_the_relay(ends: Ends) -> None:
    reset(ends.one)
    assert not await asyncio.wait_for(ends.relayed, 30)


async def test_silence_after_one_end_is_bounded(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "HALF_CLOSED_SECONDS", 0.05)
    ends.one.shutdown(socket.SHUT_WR)
    assert not await asyncio.wait_for(ends.relayed, 30)
