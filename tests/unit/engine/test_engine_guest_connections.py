"""Keep-alive connections to a guest agent: when they are used again, and what ends them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from sandbox.engine.guest_client.connections import HEAD_LIMIT, ConnectionPool
from sandbox.errors import GuestError

REQUEST = b"POST /ping HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

Serve = Callable[[socket.socket], Awaitable[None]]


class Peer:
    """Makes connections whose other ends are served by `serve`."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.sockets: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        self.sockets.append(theirs)
        self._tasks.append(asyncio.create_task(self._run(theirs)))
        return ours

    async def ended(self) -> None:
        """Wait until every connection was closed."""
        await asyncio.gather(*self._tasks)

    async def _run(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(ConnectionError):
            await self._serve(sock)


def answering(*answers: bytes) -> Serve:
    """Answer each request with the next of these, then the last again."""

    async def serve(sock: socket.socket) -> None:
        loop, left = asyncio.get_running_loop(), list(answers)
        while await loop.sock_recv(sock, 65_536):
            await loop.sock_sendall(sock, left.pop(0) if len(left) > 1 else left[0])

    return serve


@contextlib.asynccontextmanager
async def connected(serve: Serve, most: int = 4, seconds: float = 5.0) -> AsyncIterator[tuple[ConnectionPool, Peer]]:
    peer = Peer(serve)
    pool = ConnectionPool(peer.connect, most=most, most_idle=2, seconds=seconds)
    yield pool, peer
    pool.close()
    await peer.ended()


async def body_of(pool: ConnectionPool, body: AsyncIterator[bytes] | None = None) -> bytes:
    return await (await pool.request(REQUEST, body, 5.0)).read_all()


async def test_a_connection_is_used_again() -> None:
    async with connected(answering(ANSWER)) as (pool, peer):
        assert [await body_of(pool) for _ in range(3)] == [b"{}"] * 3
        assert len(peer.sockets) == 1


async def test_a_connection_that_the_peer_has_closed_is_not_used_again() -> None:
    async with connected(answering(ANSWER)) as (pool, peer):
        await body_of(pool)
        peer.sockets[0].shutdown(socket.SHUT_RDWR)
        assert await body_of(pool) == b"{}"
        assert len(peer.sockets) == 2


async def test_a_connection_whose_answer_says_that_it_is_closed_is_not_used_again() -> None:
    async with connected(answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")) as (
        pool,
        peer,
    ):
        assert [await body_of(pool) for _ in range(2)] == [b"{}"] * 2
        assert len(peer.sockets) == 2


async def test_an_answer_that_is_not_read_to_its_end_closes_its_connection() -> None:
    async with connected(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegin"), most=1, seconds=0.05) as (
        pool,
        peer,
    ):
        answer = await pool.request(REQUEST, None, 5.0)
        with pytest.raises(GuestError, match="more than 1 requests"):
            await pool.request(REQUEST, None, 5.0)
        assert await anext(answer) == b"begin"
        del answer
        answer = await pool.request(REQUEST, None, 5.0)
        assert len(peer.sockets) == 2
        answer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive!",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfive!\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a number\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n",
        b"no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * HEAD_LIMIT,
    ],
)
async def test_what_is_no_whole_answer_is_an_error(sent: bytes) -> None:
    async def serve(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_recv(sock, 65_536)
        await loop.sock_sendall(sock, sent)
        sock.shutdown(socket.SHUT_RDWR)

    async with connected(serve) as (pool, _):
        with pytest.raises(GuestError) as broken:
            await body_of(pool)
        assert broken.value.code == "agent_unreachable"


async def test_a_silent_peer_is_given_up() -> None:
    async with connected(answering(b"")) as (pool, _):
        with pytest.raises(GuestError, match="nothing received for"):
            await pool.request(REQUEST, None, 0.01)


async def test_an_early_refusal_is_read_although_the_body_is_not() -> None:
    async def refuse(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_recv(sock, 10)
        await loop.sock_sendall(sock, b"HTTP/1.1 507 Full\r\nContent-Length: 4\r\n\r\nfull")
        sock.shutdown(socket.SHUT_RDWR)

    async def body() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1_000_000)

    async with connected(refuse) as (pool, _):
        answer = await pool.request(REQUEST, body(), 5.0)
        assert (answer.status, await answer.read_all()) == (507, b"full")


async def test_an_error_of_the_body_closes_the_connection_and_is_passed_on() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"begin"
        raise FileNotFoundError

    async with connected(answering(ANSWER), most=1) as (pool, peer):
        with pytest.raises(FileNotFoundError):
            await pool.request(REQUEST, broken(), 5.0)
        assert await body_of(pool) == b"{}"
        assert len(peer.sockets) == 2


async def test_closing_ends_requests_that_wait() -> None:
    waits = asyncio.Event()

    async def silent(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while await loop.sock_recv(sock, 65_536):
            waits.set()

    async with connected(silent) as (pool, _):
        waiting = asyncio.create_task(body_of(pool))
        await waits.wait()
        pool.close()
        with pytest.raises(GuestError, match="hung up"):
            await waiting
