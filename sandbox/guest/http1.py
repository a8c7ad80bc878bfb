"""HTTP/1.1 for a server: keep-alive, `Content-Length` or chunked bodies, one request at a time on a connection.

Used by both servers of the guest agent: the control socket (`request.py`) and the OTLP server (`otlp_server.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from http import HTTPStatus

from .errors import HungUp, Refused, bad_request
from .sockets import PIECE, receive, send

#: Longest head of a request, and longest line of a chunked body, in bytes.
HEAD_LIMIT = 16 * 1024
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_LONGEST_NUMBER = 18


class Connection:
    """An accepted connection and the bytes that were read ahead from it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()

    async def read_request(self) -> HttpRequest | None:
        """The next request, its body unread; None if the peer has closed the connection. Raises Refused if it is
        malformed: the connection must be closed then."""
        try:
            head = await self.read_until(b"\r\n\r\n")
        except HungUp:
            return None
        request = HttpRequest(self, head.decode("latin-1"))
        if request.headers.get("expect", "").lower() == "100-continue":
            await self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return request

    async def read_until(self, end: bytes) -> bytes:
        """The bytes before `end`, which is skipped. Raises HungUp, or Refused if there are too many."""
        while (position := self._buffer.find(end)) < 0:
            if len(self._buffer) > HEAD_LIMIT:
                raise bad_request("a line or the head of the request is too long")
            await self._fill(HEAD_LIMIT)
        data = bytes(self._buffer[:position])
        del self._buffer[: position + len(end)]
        return data

    async def read_some(self, limit: int) -> bytes:
        """At least one byte and at most `limit`. Raises HungUp at the end."""
        if not self._buffer:
            data = await receive(self.sock, min(limit, PIECE))
            if not data:
                raise HungUp
            return data
        with memoryview(self._buffer) as view:
            data = bytes(view[:limit])
        del self._buffer[: len(data)]
        return data

    async def read_exactly(self, length: int) -> bytes:
        """Exactly that many bytes. Raises HungUp if the connection ends before."""
        data = bytearray()
        while len(data) < length:
            data += await self.read_some(length - len(data))
        return bytes(data)

    def take_read_ahead(self) -> bytes:
        """The bytes that arrived after the last request: the first ones of a tunnel or terminal."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    async def _fill(self, limit: int) -> None:
        data = await receive(self.sock, limit)
        if not data:
            raise HungUp
        self._buffer += data

    async def send(self, *parts: bytes | bytearray) -> None:
        """Send the parts one after the other."""
        await send(self.sock, *parts)

    @contextlib.contextmanager
    def hung_up(self) -> Iterator[asyncio.Future[None]]:
        """A future that is done when the peer closes the connection.

        Nothing is read. If the peer sends more instead, its end is not noticed any more.
        """
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        # The number, not the socket: the selector writes an error message with what it is given that it does not know.
        fd = self.sock.fileno()

        def check() -> None:
            loop.remove_reader(fd)
            if self._at_end() and not future.done():
                future.set_result(None)

        if not self._buffer:
            loop.add_reader(fd, check)
        try:
            yield future
        finally:
            loop.remove_reader(fd)

    def _at_end(self) -> bool:
        try:
            return not self.sock.recv(1, socket.MSG_PEEK)
        except ConnectionError:
            return True


class HttpRequest:
    """One request: its head, and its body to be read."""

    def __init__(self, connection: Connection, head: str) -> None:
        lines = head.split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise bad_request("the request line is malformed")
        self.connection = connection
        self.method, self.target, version = words
        #: Names in lower case.
        self.headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise bad_request("a header is malformed")
            self.headers[name.strip().lower()] = value.strip()
        #: The connection is to be closed after the answer.
        self.close_after = version == "HTTP/1.0" or "close" in self.headers.get("connection", "").lower()
        self._chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        #: Bytes left of the body, or of its current chunk.
        self._left = 0 if self._chunked else parse_number(self.headers.get("content-length", "0"))
        self._ended = not self._chunked and self._left == 0

    async def read(self, limit: int = PIECE) -> bytes:
        """The next bytes of the body; b"" at its end. Raises HungUp, or Refused if a chunk is malformed."""
        try:
            return await self._read(limit)
        except Refused:
            # Where the next request begins is unknown.
            self._ended = self.close_after = True
            raise

    async def _read(self, limit: int) -> bytes:
        if self._chunked and not self._left and not self._ended:
            await self._start_chunk()
        if self._ended:
            return b""
        data = await self.connection.read_some(min(limit, self._left))
        self._left -= len(data)
        if not self._left:
            if self._chunked:
                await self.connection.read_until(b"\r\n")
            else:
                self._ended = True
        return data

    async def _start_chunk(self) -> None:
        line = await self.connection.read_until(b"\r\n")
        self._left = parse_number(line.split(b";")[0].strip().decode("latin-1"), 16)
        if not self._left:
            while await self.connection.read_until(b"\r\n"):
                pass  # trailers are not used
            self._ended = True

    async def drain(self) -> None:
        """Read the body to its end, so that the connection can be used for the next request."""
        while await self.read():
            pass


def parse_number(text: str, base: int = 10) -> int:
    """A length of the protocol, without sign or spaces. Raises Refused."""
    digits_only = _HEX_DIGITS.issuperset(text) if base == 16 else text.isascii() and text.isdecimal()
    if not text or len(text) > _LONGEST_NUMBER or not digits_only:
        raise bad_request("a length is not a number")
    return int(text, base)


def response_head(status: int, headers: dict[str, str] | None = None) -> bytes:
    """Status line and headers, with the empty line that ends them."""
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Other"
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
