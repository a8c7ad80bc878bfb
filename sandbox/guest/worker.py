"""What a forked process has of a request: a blocking socket to the guest agent's main process.

The main process sends the body in pieces, each 4 bytes of length (big endian) and as many bytes; a length of 0 marks
the end of the body, an end of the socket before that a client that is gone. What the worker writes is the HTTP answer,
which the main process copies to the client.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from .errors import HungUp, Refused
from .request import LAST_CHUNK, STREAM_HEAD, encode_answer, encode_chunk

LENGTH = struct.Struct(">I")
PIECE = 256 * 1024


class WorkerRequest:
    """A request as the file functions see it."""

    def __init__(self, sock: socket.socket, args: dict[str, Any]) -> None:
        #: Its other end is shut down when the client is gone.
        self.sock = sock
        self.args = args
        self.answered = False
        self._left = 0
        self._ended = False

    def read(self, limit: int = PIECE) -> bytes:
        """The next bytes of the body; b"" at its end. Raises HungUp."""
        if not self._left and not self._ended:
            (self._left,) = LENGTH.unpack(self._receive(LENGTH.size, socket.MSG_WAITALL))
            self._ended = self._left == 0
        if self._ended:
            return b""
        data = self._receive(min(limit, self._left))
        self._left -= len(data)
        return data

    def _receive(self, limit: int, flags: int = 0) -> bytes:
        data = self.sock.recv(limit, flags)
        if not data or (flags and len(data) < limit):
            raise HungUp
        return data

    def drain(self) -> None:
        """Read the body to its end."""
        while self.read():
            pass

    def answer(self, document: Any, status: int = 200) -> None:
        """Answer with JSON."""
        self.answered = True
        self.sock.sendall(b"".join(encode_answer(document, status=status)))

    def refuse(self, error: Refused) -> None:
        """Answer with the error."""
        self.answer(error.document(), status=error.status)

    def stream(self) -> ChunkedWriter:
        """Answer 200 with a body of unknown length."""
        self.answered = True
        self.sock.sendall(STREAM_HEAD)
        return ChunkedWriter(self.sock)


class ChunkedWriter:
    """A chunked body. Without `end` the reader sees a transfer that broke off, which is how a failure is shown."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def write(self, data: bytes) -> None:
        self._sock.sendall(b"".join(encode_chunk(data)))

    def end(self) -> None:
        self._sock.sendall(LAST_CHUNK)
