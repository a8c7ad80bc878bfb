"""A small HTTP/1.1 client that sends one request again and again over several connections.

It does little for each request, so that on a machine with few processors the server is measured and not the client.
"""

from __future__ import annotations

import re
import selectors
import socket
import time
from dataclasses import dataclass
from pathlib import Path

#: A TCP address, or the path of a unix socket.
Address = tuple[str, int] | Path

_LENGTH = re.compile(rb"\r\ncontent-length:\s*([0-9]+)", re.IGNORECASE)
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Load:
    """What a run measured."""

    #: The sorted durations of the requests, in seconds.
    durations: list[float]
    seconds: float

    @property
    def per_second(self) -> float:
        return len(self.durations) / self.seconds


class _Connection:
    def __init__(self, address: Address, request: bytes) -> None:
        if isinstance(address, Path):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(str(address))
        else:
            self.socket = socket.create_connection(address)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self._received = b""
        self.sent_at = 0.0

    def send(self) -> None:
        self._received = b""
        self.sent_at = time.perf_counter()
        self.socket.sendall(self._request)

    def receive(self) -> bool:
        """Whether the whole answer is there. Its status must be 200 and it must have a length."""
        data = self.socket.recv(65536)
        if not data:
            raise AssertionError(f"the connection was closed after {self._received[:300]!r}")
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return False
        length = _LENGTH.search(head)
        if length is None or b" 200 " not in head[:13]:
            raise AssertionError(f"unexpected answer: {self._received[:300]!r}")
        return len(body) >= int(length[1])


def get(path: str, **headers: str) -> bytes:
    """A GET request; `_` in the names of headers stands for `-`."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


def run(address: Address, request: bytes, *, connections: int, seconds: float) -> Load:
    """Send the request on each connection as soon as the answer to the one before is there."""
    durations: list[float] = []
    opened = [_Connection(address, request) for _ in range(connections)]
    with selectors.DefaultSelector() as selector:
        start = time.perf_counter()
        for connection in opened:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send()
        while (now := time.perf_counter()) - start < seconds:
            ready = selector.select(_TIMEOUT_SECONDS)
            if not ready:
                raise AssertionError(f"no answer within {_TIMEOUT_SECONDS:g} s")
            for key, _ in ready:
                if key.data.receive():
                    durations.append(time.perf_counter() - key.data.sent_at)
                    key.data.send()
    for connection in opened:
        connection.socket.close()
    return Load(sorted(durations), now - start)
