"""Viewers of one session's events: a process with many connections that notes when each event arrives."""

from __future__ import annotations

import multiprocessing
import re
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

#: What the benchmark puts into each event: the time of its insert, in nanoseconds.
_INSERTED = re.compile(rb'"inserted":([0-9]+)')
_PIECE = 256 * 1024


class Viewers:
    """The parent's side of the process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def arrived(self) -> list[float]:
        """The seconds from insert to arrival of everything that has arrived since the last call."""
        self._pipe.send("arrived")
        delays: list[float] = self._pipe.recv()
        return delays


@contextmanager
def watching(address: tuple[str, int], request: bytes, count: int) -> Iterator[Viewers]:
    """So many viewers, each with its stream open, for the block."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_watch, args=(address, request, count, theirs))
    process.start()
    try:
        assert ours.recv() == "open"
        yield Viewers(ours)
    finally:
        process.terminate()
        process.join()


def _watch(address: tuple[str, int], request: bytes, count: int, pipe: Connection) -> None:
    delays: list[float] = []
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            sock = socket.create_connection(address)
            sock.sendall(request)
            selector.register(sock, selectors.EVENT_READ, _Stream(sock))
        selector.register(pipe, selectors.EVENT_READ)
        streams = [key.data for key in selector.get_map().values() if key.data is not None]
        announced = False
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    pipe.recv()
                    pipe.send(delays)
                    delays = []
                else:
                    delays += key.data.receive()
            if not announced and all(stream.is_open for stream in streams):
                announced = True
                pipe.send("open")


class _Stream:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = b""
        #: The stream has begun, and the events before it have been sent.
        self.is_open = False

    def receive(self) -> list[float]:
        data = self._sock.recv(_PIECE)
        if not data:
            raise AssertionError(f"a stream ended after {self._rest[-300:]!r}")
        now = time.time_ns()
        *events, self._rest = (self._rest + data).split(b"\n\n")
        found: list[Any] = [_INSERTED.search(event) for event in events]
        self.is_open = self.is_open or any(found)
        return [(now - int(match[1])) / 1e9 for match in found if match]
