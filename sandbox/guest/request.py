"""Calls of the guest agent's functions over HTTP (`http1.py`).

Every call is `POST /function`. Its body is a JSON object of `Sandbox-Args-Length` bytes with the arguments, then the
raw bytes that the function takes, if any. Answers are JSON, or JSON of `Sandbox-Args-Length` bytes and raw bytes after
it, or a chunked stream. Only `CONNECT` has no body. Nothing is ever quoted into a path or a header this way.
"""

from __future__ import annotations

import json
from typing import Any

from .errors import Refused, bad_request
from .http1 import Connection, HttpRequest, parse_number, response_head

ARGS_LIMIT = 4 * 1024 * 1024
ARGS_LENGTH = "sandbox-args-length"

STREAM_HEAD = response_head(200, {"transfer-encoding": "chunked"})
LAST_CHUNK = b"0\r\n\r\n"


class Request:
    """One call: its arguments, the body after them (`http`), and its answer."""

    def __init__(self, http: HttpRequest, args: dict[str, Any]) -> None:
        self.http = http
        self.connection: Connection = http.connection
        self.args = args
        #: At least the head of an answer has been sent.
        self.answered = False

    async def read_all(self, limit: int) -> bytes:
        """The raw bytes after the arguments. Raises Refused if there are more than `limit`."""
        data = bytearray()
        while piece := await self.http.read():
            data += piece
            if len(data) > limit:
                raise Refused("agent_refused", f"the body is longer than {limit} bytes", 413)
        return bytes(data)

    async def answer(self, document: Any, *raw: bytes | bytearray, status: int = 200) -> None:
        """Answer with JSON, and raw bytes after it."""
        self.answered = True
        await self.connection.send(*encode_answer(document, *raw, status=status))

    async def switch(self, status: int, headers: dict[str, str] | None = None) -> None:
        """Answer a CONNECT or an upgrade: from here on the connection carries other bytes than HTTP."""
        self.answered = True
        self.http.close_after = True
        await self.connection.send(response_head(status, headers))

    async def start_stream(self) -> None:
        """Answer 200 with a chunked body that `write` and `end_stream` make."""
        self.answered = True
        await self.connection.send(STREAM_HEAD)

    async def write(self, *parts: bytes) -> None:
        """Send the parts as one chunk."""
        await self.connection.send(*encode_chunk(*parts))

    async def end_stream(self) -> None:
        """Mark the stream as complete. Without this the reader sees a transfer that broke off."""
        await self.connection.send(LAST_CHUNK)


async def read_arguments(http: HttpRequest) -> dict[str, Any]:
    """The arguments at the front of the body. Raises Refused if they are not as they should be."""
    length = parse_number(http.headers.get(ARGS_LENGTH, "0"))
    if length > ARGS_LIMIT:
        raise bad_request(f"the arguments are longer than {ARGS_LIMIT} bytes")
    data = bytearray()
    while len(data) < length:
        piece = await http.read(length - len(data))
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


def encode_answer(document: Any, *raw: bytes | bytearray, status: int = 200) -> list[bytes | bytearray]:
    """A whole answer: head, JSON and raw bytes."""
    text = json.dumps(document, separators=(",", ":")).encode("ascii")
    length = len(text) + sum(map(len, raw))
    return [response_head(status, {"content-length": str(length), ARGS_LENGTH: str(len(text))}), text, *raw]


def encode_chunk(*parts: bytes) -> list[bytes]:
    """One chunk of a stream; nothing if the parts are empty, as an empty chunk would end it."""
    length = sum(map(len, parts))
    return [b"%x\r\n" % length, *parts, b"\r\n"] if length else []


_MISSING = object()


def argument(args: dict[str, Any], name: str, kind: type | tuple[type, ...], default: Any = _MISSING) -> Any:
    """One argument. Raises Refused if it is missing and has no default, or is of another type."""
    value = args.get(name, default)
    if value is _MISSING:
        raise bad_request(f"the argument {name} is missing")
    if value is default:
        return value
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise bad_request(f"the argument {name} is not of the right type")
    return value
