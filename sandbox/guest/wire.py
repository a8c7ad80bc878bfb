"""HTTP/1.1 as the agent speaks it: keep-alive, `Content-Length` or chunked, one request at a time on a connection.

Every request is `POST /function` whose body is a JSON object of `Sandbox-Args-Length` bytes with the arguments, then
whatever raw bytes the function takes. Answers are JSON, or JSON of `Sandbox-Args-Length` bytes and raw bytes after it,
or a chunked stream. `CONNECT` alone has no body. So nothing is ever quoted into a path or a header.
"""

from __future__ import annotations

import json
import socket
from typing import Any

HEAD_LIMIT = 16 * 1024
ARGS_LIMIT = 4 * 1024 * 1024
PIECE = 64 * 1024
ARGS_LENGTH = "sandbox-args-length"


class Refused(Exception):
    """The request cannot be done. `code` is one of those of `AgentError`; `message` says why."""

    def __init__(self, code: str, message: str, status: int = 409) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status

    def document(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message}


class HungUp(Exception):
    """The other side closed the connection in the middle."""


def bad_request(message: str) -> Refused:
    """The request itself is malformed."""
    return Refused("agent_refused", message, 400)


class Connection:
    """One accepted connection and what was read ahead from it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()

    def read_request(self) -> Request | None:
        """The next request, its head and arguments read; None if the other side closed."""
        end = self._buffer.find(b"\r\n\r\n")
        while end < 0:
            if len(self._buffer) > HEAD_LIMIT:
                raise bad_request("the head of the request is too long")
            data = self.sock.recv(PIECE)
            if not data:
                return None
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
        head = self._buffer[:end].decode("latin-1")
        del self._buffer[: end + 4]
        return Request(self, head)

    def read_some(self, limit: int) -> bytes:
        """At least one byte and at most `limit`. Raises HungUp at the end."""
        if self._buffer:
            data = bytes(self._buffer[:limit])
            del self._buffer[:limit]
            return data
        data = self.sock.recv(min(limit, PIECE))
        if not data:
            raise HungUp
        return data

    def read_line(self) -> bytes:
        end = self._buffer.find(b"\r\n")
        while end < 0:
            if len(self._buffer) > HEAD_LIMIT:
                raise bad_request("a chunk's size is too long")
            data = self.sock.recv(PIECE)
            if not data:
                raise HungUp
            self._buffer += data
            end = self._buffer.find(b"\r\n")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def forget_read_ahead(self) -> None:
        """A forked worker has read this request's body: what was read ahead belongs to it."""
        self._buffer.clear()

    def take_read_ahead(self) -> bytes:
        """Bytes that arrived after the request: the first of a tunnel or terminal."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data


class Request:
    """One request. The body is read by `read`; `args` is its JSON part."""

    def __init__(self, connection: Connection, head: str) -> None:
        self.connection = connection
        lines = head.split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3:
            raise bad_request("the request line is malformed")
        self.method, self.target = words[0], words[1]
        headers = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise bad_request("a header is malformed")
            headers[name.strip().lower()] = value.strip()
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        #: Bytes left of the body, or of the chunk under way.
        self._left = 0 if self._chunked else _number(headers.get("content-length", "0"))
        self._ended = not self._chunked and self._left == 0
        self.close_after = headers.get("connection", "").lower() == "close"
        self.answered = False
        self.args: dict[str, Any] = self._read_args(_number(headers.get(ARGS_LENGTH, "0")))

    def _read_args(self, length: int) -> dict[str, Any]:
        if length > ARGS_LIMIT:
            raise bad_request(f"the arguments are longer than {ARGS_LIMIT} bytes")
        data = bytearray()
        while len(data) < length:
            piece = self.read(length - len(data))
            if not piece:
                raise bad_request("the body ends before its arguments do")
            data += piece
        try:
            args = json.loads(data or b"{}")
        except ValueError:
            raise bad_request("the arguments are not JSON") from None
        if not isinstance(args, dict):
            raise bad_request("the arguments are not an object")
        return args

    def read(self, limit: int = PIECE) -> bytes:
        """The next bytes of the body; b"" at its end."""
        if self._chunked and self._left == 0 and not self._ended:
            try:
                self._left = int(self.connection.read_line().split(b";")[0], 16)
            except ValueError:
                raise HungUp from None
            if self._left == 0:
                self.connection.read_line()
                self._ended = True
        if self._ended:
            return b""
        data = self.connection.read_some(min(limit, self._left))
        self._left -= len(data)
        if self._left == 0:
            if self._chunked:
                self.connection.read_line()
            else:
                self._ended = True
        return data

    def read_all(self, limit: int) -> bytes:
        """The whole rest of the body; refused if longer than `limit`."""
        parts = []
        size = 0
        while data := self.read():
            size += len(data)
            if size > limit:
                raise Refused("agent_refused", f"the body is longer than {limit} bytes", 413)
            parts.append(data)
        return b"".join(parts)

    def drain(self) -> None:
        """Read the body to its end, so that the connection can take the next request."""
        while self.read():
            pass

    def answer(self, document: Any, *raw: bytes | bytearray, status: int = 200) -> None:
        """Answer with JSON, and raw bytes after it."""
        self.answered = True
        _send(self.connection.sock, status, document, *raw)

    def refuse(self, error: Refused) -> None:
        """Answer with the error."""
        self.answer(error.document(), status=error.status)

    def switch(self, status: int) -> None:
        """Answer a CONNECT or an upgrade: from here the connection carries other bytes."""
        self.answered = True
        self.close_after = True
        self.connection.sock.sendall(f"HTTP/1.1 {status} {_REASONS[status]}\r\n\r\n".encode("ascii"))

    def stream(self) -> ChunkedWriter:
        """Answer 200 with a body of unknown length."""
        self.answered = True
        return ChunkedWriter(self.connection.sock)


class ChunkedWriter:
    """A chunked body. Without `end` the reader sees a broken transfer, which is what a failure in the middle is."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

    def write(self, *parts: bytes) -> None:
        length = sum(map(len, parts))
        if length:
            self._sock.sendall(b"".join((self._head, b"%x\r\n" % length, *parts, b"\r\n")))
            self._head = b""

    def start(self) -> None:
        """Send the head now, with no byte of the body yet."""
        self._sock.sendall(self._head)
        self._head = b""

    def end(self) -> None:
        self._sock.sendall(self._head + b"0\r\n\r\n")
        self._head = b""


def refuse_unread(sock: socket.socket, error: Refused) -> None:
    """Answer a request that could not be understood; the connection must be closed then."""
    _send(sock, error.status, error.document())


def _send(sock: socket.socket, status: int, document: Any, *raw: bytes | bytearray) -> None:
    text = json.dumps(document, separators=(",", ":")).encode("ascii")
    length = len(text) + sum(map(len, raw))
    head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Refused')}\r\ncontent-length: {length}\r\n"
    head += f"{ARGS_LENGTH}: {len(text)}\r\n\r\n"
    sock.sendall(b"".join((head.encode("ascii"), text, *raw)))


_REASONS = {101: "Switching Protocols", 200: "OK"}


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise bad_request("a length is not a number")
    return int(text)


_MISSING = object()


def argument(args: dict[str, Any], name: str, kind: type | tuple[type, ...], default: Any = _MISSING) -> Any:
    """One argument of the right type; Refused if it is missing or of another."""
    value = args.get(name, default)
    if value is _MISSING:
        raise bad_request(f"the argument {name} is missing")
    if value is default:
        return value
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise bad_request(f"the argument {name} is not of the right type")
    return value
