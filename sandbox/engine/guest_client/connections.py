"""Keep-alive connections to one guest agent, over any connected sockets. Answers are parsed by `httptools`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus

import httptools

from sandbox.engine.guest_client.errors import ANSWER_BYTES, answer_too_large, guest_error, unreachable

#: Most that is read from a socket at once.
PIECE = 256 * 1024
HEAD_LIMIT = 16 * 1024
LAST_CHUNK = b"0\r\n\r\n"


class _Parsed:
    """What the parser has found in an answer so far. The parser calls its methods."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.parts: deque[bytes] = deque()
        self.has_head = False
        self.is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.has_head = True

    def on_body(self, data: bytes) -> None:
        self.parts.append(data)

    def on_message_complete(self) -> None:
        self.is_complete = True


class Connection:
    """A connected, non-blocking socket. Each call may take `seconds`; None for any time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    def is_idle(self) -> bool:
        """Whether it can be used for the next request: a peer that has sent something by itself has closed it."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    async def send(self, data: bytes, seconds: float | None) -> bool:
        """Send all of it. False if the peer no longer reads: why may be in its answer. Raises GuestError."""
        try:
            async with asyncio.timeout(seconds):
                await self._loop.sock_sendall(self._sock, data)
        except TimeoutError:
            raise unreachable(f"nothing could be sent for {seconds} seconds") from None
        except OSError:
            return False
        return True

    async def receive(self, seconds: float | None) -> bytes:
        """The next bytes. Raises GuestError, at the end of the connection too."""
        try:
            async with asyncio.timeout(seconds):
                data = await self._loop.sock_recv(self._sock, PIECE)
        except TimeoutError:
            raise unreachable(f"nothing received for {seconds} seconds") from None
        except OSError as error:
            raise unreachable(error.strerror or error) from error
        if not data:
            raise unreachable("it hung up")
        return data

    def hang_up(self) -> None:
        """End the connection while a request may wait on it, which fails then."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()


class Answer:
    """The answer to a request: its head has been read. It must be read to its end or closed."""

    def __init__(self, pool: ConnectionPool, connection: Connection, seconds: float | None) -> None:
        self._pool = pool
        self._seconds = seconds
        self._parsed = _Parsed()
        self._parser = httptools.HttpResponseParser(self._parsed)
        self._connection: Connection | None = connection

    @property
    def status(self) -> int:
        return self._parser.get_status_code()

    @property
    def headers(self) -> dict[str, str]:
        """The names are in lower case."""
        return self._parsed.headers

    async def read_head(self) -> None:
        """Raises GuestError; the connection is closed then."""
        try:
            await self._read_head()
        except BaseException:
            self.close()
            raise

    async def _read_head(self) -> None:
        received = 0
        while not self._parsed.has_head:
            received += await self._read()
            if received > HEAD_LIMIT and not self._parsed.has_head:
                raise unreachable("the head of its answer is too long")
        if self.status < HTTPStatus.OK:
            raise unreachable(f"it answers with the status {self.status}")

    async def _read(self) -> int:
        """Read and parse the next bytes; how many these were."""
        if self._connection is None:
            raise unreachable("the connection was closed")
        data = await self._connection.receive(self._seconds)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise unreachable(f"its answer is malformed ({error})") from error
        return len(data)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        parsed = self._parsed
        try:
            while not parsed.parts and not parsed.is_complete:
                await self._read()
        except BaseException:
            self.close()
            raise
        if parsed.parts:
            return parsed.parts.popleft()
        self.close()
        raise StopAsyncIteration

    async def read_all(self) -> bytes:
        """The whole body. Raises GuestError `answer_too_large`."""
        body = bytearray()
        async for part in self:
            body += part
            if len(body) > ANSWER_BYTES:
                self.close()
                raise answer_too_large()
        return bytes(body)

    def close(self) -> None:
        """Give the connection back, if the answer has been read; else close it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            last = "close" in self.headers.get("connection", "").lower()
            self._pool.give_back(connection, reusable=self._parsed.is_complete and not last)

    def __del__(self) -> None:
        # A response that ends early drops its source, which frees the connection.
        self.close()


class ConnectionPool:
    """Connections that are made when they are needed and kept for the next request. Not thread-safe."""

    def __init__(
        self, connect: Callable[[], Awaitable[socket.socket]], *, most: int, most_idle: int, seconds: float
    ) -> None:
        """There are at most `most` connections at once; a request waits for one for at most so many seconds."""
        self._connect = connect
        self._most = most
        self._free = asyncio.Semaphore(most)
        self._most_idle = most_idle
        self._seconds = seconds
        self._idle: list[Connection] = []
        self._used: set[Connection] = set()

    async def request(self, head: bytes, body: AsyncIterator[bytes] | None, seconds: float | None) -> Answer:
        """Send a request and read the head of its answer. `body` is sent in chunks after what `head` contains of it.

        For `seconds` nothing may be sent or received. Raises GuestError.
        """
        connection = await self._take()
        try:
            await _send(connection, head, body, seconds)
        except BaseException:
            self.give_back(connection, reusable=False)
            raise
        answer = Answer(self, connection, seconds)
        await answer.read_head()
        return answer

    async def _take(self) -> Connection:
        try:
            async with asyncio.timeout(self._seconds):
                await self._free.acquire()
        except TimeoutError:
            raise guest_error("agent_refused", f"more than {self._most} requests to this container at once") from None
        try:
            connection = self._idle_one() or Connection(await self._connect())
        except BaseException:
            self._free.release()
            raise
        self._used.add(connection)
        return connection

    def _idle_one(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_idle():
                return connection
            connection.close()
        return None

    def give_back(self, connection: Connection, *, reusable: bool) -> None:
        """Every connection that was taken is given back once."""
        self._free.release()
        if reusable and connection in self._used and len(self._idle) < self._most_idle:
            self._idle.append(connection)
        else:
            connection.close()
        self._used.discard(connection)

    def close(self) -> None:
        """Close the connections. Requests in progress fail."""
        while self._used:
            self._used.pop().hang_up()
        while self._idle:
            self._idle.pop().close()


async def _send(connection: Connection, head: bytes, body: AsyncIterator[bytes] | None, seconds: float | None) -> None:
    reads = await connection.send(head, seconds)
    if body is None:
        return
    async for part in body:
        if not reads:
            return
        if part:
            reads = await connection.send(b"%x\r\n%b\r\n" % (len(part), part), seconds)
    await connection.send(LAST_CHUNK, seconds)
