"""What the container's apps report, on its way to the service: OTLP requests in waiting, each until it is answered.

The apps' exporters send to this container's loopback (`exporters.py`); nothing of the service can be reached from in
here. The service comes for it, on a connection that it makes and keeps (`exports` of `routes.py`). After 101:

    agent      JSON length (4), bodies' length (4), [{id, path, type, encoding, token, length}, ...], bodies
    service    JSON length (4), bodies' length (4), [{id, status, type, retry_after?, length}, ...], bodies

All that wait are sent together, up to `BATCH_BYTES`; the next are sent once these are answered. An empty list now and
then says that the agent lives, and is not answered. Of two that come for exports the later gets them: the earlier is
frozen, or about to learn that another replica has taken over. What a connection that ends has left unanswered goes to
the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from .wire import HungUp, Request

HEAD = struct.Struct(">II")
#: Requests in waiting, and the sum of their bodies. More are refused.
WAITING_LIMIT = 64
WAITING_BYTES = 16 * 1024 * 1024
#: Bodies sent to the service at once, unless a single one is larger.
BATCH_BYTES = 4 * 1024 * 1024
#: The service's answers are no longer than this.
ANSWERS_LIMIT = 1024 * 1024
HEARTBEAT_SECONDS = 60.0


class Answer:
    """What an exporter is told."""

    def __init__(self, status: int, media_type: str, body: bytes, retry_after: int | None = None) -> None:
        self.status = status
        self.media_type = media_type
        self.body = body
        self.retry_after = retry_after


class Export:
    """One request of an exporter."""

    def __init__(
        self, path: str, headers: dict[str, str], body: bytes, answered: Callable[[Export, Answer], None]
    ) -> None:
        self.path = path
        self.media_type = headers.get("content-type", "")
        self.encoding = headers.get("content-encoding", "")
        self.token = headers.get("authorization", "")
        self.body = body
        #: Called once, from any thread.
        self.answered = answered
        self.number = 0

    def head(self) -> dict[str, Any]:
        return {
            "id": self.number,
            "path": self.path,
            "type": self.media_type,
            "encoding": self.encoding,
            "token": self.token,
            "length": len(self.body),
        }


class Exports:
    """All requests that wait for the service, oldest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: OrderedDict[int, Export] = OrderedDict()
        #: Sent to the service and not answered yet.
        self._sent: dict[int, Export] = {}
        self._numbers = 0
        self._collection: _Collection | None = None

    def add(self, export: Export) -> bool:
        """Have it wait; False if too many do, or too much."""
        with self._lock:
            present = [*self._waiting.values(), *self._sent.values()]
            if len(present) >= WAITING_LIMIT or sum(len(e.body) for e in present) + len(export.body) > WAITING_BYTES:
                return False
            self._numbers += 1
            export.number = self._numbers
            self._waiting[export.number] = export
            if self._collection is not None:
                self._collection.wake()
        return True

    def is_waiting(self, export: Export) -> bool:
        """Whether the service has not been sent it yet."""
        with self._lock:
            return export.number in self._waiting

    def drop(self, export: Export) -> None:
        """Nobody waits for its answer any more."""
        with self._lock:
            self._waiting.pop(export.number, None)
            self._sent.pop(export.number, None)

    def collect(self, request: Request) -> None:
        """Serve the connection of one who comes for exports, to its end."""
        collection = _Collection(request.connection.sock)
        request.switch(101)
        with self._lock:
            earlier, self._collection = self._collection, collection
        if earlier is not None:
            earlier.end()
        try:
            self._serve(collection)
        finally:
            with self._lock:
                if self._collection is collection:
                    self._collection = None
            collection.close()

    def _serve(self, collection: _Collection) -> None:
        while True:
            batch = self._take(collection)
            if batch is None:
                return
            if not batch:
                if not collection.rest():
                    return
                continue
            try:
                collection.send(batch)
                answers = collection.receive()
            except BaseException:
                self._put_back(batch)
                raise
            for export in batch:
                answer = answers.get(export.number)
                with self._lock:
                    wanted = self._sent.pop(export.number, None) is not None
                if wanted:
                    export.answered(export, answer or Answer(503, "", b"", 2))

    def _take(self, collection: _Collection) -> list[Export] | None:
        """What is to be sent now; None if another came for it."""
        with self._lock:
            if self._collection is not collection:
                return None
            batch: list[Export] = []
            size = 0
            for export in self._waiting.values():
                size += len(export.body)
                if batch and size > BATCH_BYTES:
                    break
                batch.append(export)
            for export in batch:
                del self._waiting[export.number]
                self._sent[export.number] = export
            return batch

    def _put_back(self, batch: list[Export]) -> None:
        """These were sent and may not have arrived. Records that did are told apart by whoever writes them, as when
        an exporter sends again."""
        with self._lock:
            for export in reversed(batch):
                if self._sent.pop(export.number, None) is not None:
                    self._waiting[export.number] = export
                    self._waiting.move_to_end(export.number, last=False)
            if self._collection is not None:
                self._collection.wake()


class _Collection:
    """The connection of one who comes for exports."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._poller = select.poll()
        self._poller.register(self._wake_read, select.POLLIN)
        self._poller.register(sock, select.POLLIN | select.POLLRDHUP)

    def wake(self) -> None:
        """There is something to send. Under the lock of `Exports`, like `close`: the pipe is there."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def end(self) -> None:
        """Break it off, whatever it is doing."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        os.close(self._wake_read)
        os.close(self._wake_write)

    def rest(self) -> bool:
        """Until there may be something to send, saying now and then that the agent lives; False if the other side has
        gone."""
        ready = dict(self._poller.poll(HEARTBEAT_SECONDS * 1000))
        if self._sock.fileno() in ready:
            return False
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        else:
            self._sock.sendall(_packed([], []))
        return True

    def send(self, batch: list[Export]) -> None:
        self._sock.sendall(_packed([export.head() for export in batch], [export.body for export in batch]))

    def receive(self) -> dict[int, Answer]:
        """The answers to what was sent."""
        json_length, bodies_length = HEAD.unpack(self._exactly(HEAD.size))
        if json_length + bodies_length > ANSWERS_LIMIT:
            raise HungUp
        heads = json.loads(self._exactly(json_length))
        answers = {}
        for head in heads:
            body = self._exactly(head["length"])
            answers[head["id"]] = Answer(head["status"], head["type"], body, head.get("retry_after"))
        return answers

    def _exactly(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            piece = self._sock.recv(length - len(data))
            if not piece:
                raise HungUp
            data += piece
        return bytes(data)


def _packed(heads: list[dict[str, Any]], bodies: list[bytes]) -> bytes:
    text = json.dumps(heads, separators=(",", ":")).encode("ascii")
    return b"".join((HEAD.pack(len(text), sum(map(len, bodies))), text, *bodies))
