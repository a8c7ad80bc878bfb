"""OTLP requests of the container's apps on their way to the service. Each waits in the queue until it is answered.

The apps' exporters send to this container's loopback (`otlp_server.py`), because nothing of the service can be reached
from a container. The service fetches the requests over a connection that it makes and keeps open (function `exports`
of `routes.py`). After 101:

    guest      JSON length (4), bodies' length (4), [{id, path, type, encoding, token, length}, ...], bodies
    service    JSON length (4), bodies' length (4), [{id, status, type, retry_after?, length}, ...], bodies

All requests that wait are sent together, up to `BATCH_BYTES`; the next ones are sent once these are answered. An empty
list is sent as a heartbeat and is not answered. Only the newest connection is served: the replica that made an earlier
one has stopped responding or has lost the session to another. Requests that a connection leaves unanswered when it
ends are sent over the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections import OrderedDict
from typing import Any

from .errors import HungUp
from .http1 import Connection
from .sockets import readable

HEAD = struct.Struct(">II")
#: Most requests in the queue, and the most bytes of their bodies. More are refused.
WAITING_LIMIT = 64
WAITING_BYTES = 16 * 1024 * 1024
#: Bodies that are sent to the service at once, unless a single one is larger.
BATCH_BYTES = 4 * 1024 * 1024
#: Longest answers of the service to one batch.
ANSWERS_LIMIT = 1024 * 1024
HEARTBEAT_SECONDS = 60.0


class Answer:
    """The service's answer to an exporter."""

    def __init__(self, status: int, media_type: str, body: bytes, retry_after: int | None = None) -> None:
        self.status = status
        self.media_type = media_type
        self.body = body
        self.retry_after = retry_after


class Export:
    """One request of an exporter."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path = path
        self.media_type = headers.get("content-type", "")
        self.encoding = headers.get("content-encoding", "")
        self.token = headers.get("authorization", "")
        self.body = body
        self.number = 0
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def head(self) -> dict[str, Any]:
        return {
            "id": self.number,
            "path": self.path,
            "type": self.media_type,
            "encoding": self.encoding,
            "token": self.token,
            "length": len(self.body),
        }


class ExportQueue:
    """All requests that wait for the service, oldest first. Not thread-safe."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[int, Export] = OrderedDict()
        #: Sent to the service and not answered yet.
        self._sent: dict[int, Export] = {}
        self._last_number = 0
        #: The connection of the service that is served.
        self._collector: Connection | None = None
        self._arrived = asyncio.Event()

    def add(self, export: Export) -> bool:
        """Add it to the queue; False if that is full. `export.answer` is set when the service has answered."""
        present = [*self._waiting.values(), *self._sent.values()]
        if len(present) >= WAITING_LIMIT or sum(len(e.body) for e in present) + len(export.body) > WAITING_BYTES:
            return False
        self._last_number += 1
        export.number = self._last_number
        self._waiting[export.number] = export
        self._arrived.set()
        return True

    def is_waiting(self, export: Export) -> bool:
        """Whether it has not been sent to the service yet."""
        return export.number in self._waiting

    def drop(self, export: Export) -> None:
        """Remove it: its exporter does not wait for the answer any more."""
        self._waiting.pop(export.number, None)
        self._sent.pop(export.number, None)

    async def serve(self, connection: Connection) -> None:
        """Send the requests over a connection of the service, and receive its answers, until it ends or a newer one
        comes. Raises HungUp, or an OSError, when it breaks."""
        if self._collector is not None:
            with contextlib.suppress(OSError):
                self._collector.sock.shutdown(socket.SHUT_RDWR)
        self._collector = connection
        try:
            while self._collector is connection:
                batch = self._take_batch()
                if batch:
                    await self._exchange(connection, batch)
                elif not await self._wait_for_more(connection):
                    return
        finally:
            if self._collector is connection:
                self._collector = None

    async def _wait_for_more(self, connection: Connection) -> bool:
        """Wait for a request, and send heartbeats. False if the connection has ended."""
        self._arrived.clear()
        arrived: asyncio.Future[Any] = asyncio.create_task(self._arrived.wait())
        try:
            with readable(connection.sock.fileno()) as ended:
                await asyncio.wait({arrived, ended}, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            arrived.cancel()
        if ended.done():
            return False
        if not self._arrived.is_set():
            await connection.send(*_encode([], []))
        return True

    async def _exchange(self, connection: Connection, batch: list[Export]) -> None:
        try:
            await connection.send(*_encode([export.head() for export in batch], [export.body for export in batch]))
            answers = await _receive_answers(connection)
        except BaseException:
            self._put_back(batch)
            raise
        for export in batch:
            if self._sent.pop(export.number, None) is not None:
                export.answer.set_result(answers.get(export.number) or Answer(503, "", b"", 2))

    def _take_batch(self) -> list[Export]:
        """Mark the requests that are to be sent now as sent."""
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
        """These were sent and may not have arrived. If they did, the service recognizes the duplicates, as it does when
        an exporter sends a request again."""
        for export in reversed(batch):
            if self._sent.pop(export.number, None) is not None:
                self._waiting[export.number] = export
                self._waiting.move_to_end(export.number, last=False)
        self._arrived.set()


async def _receive_answers(connection: Connection) -> dict[int, Answer]:
    """The service's answers to a batch, by the number of the request."""
    json_length, bodies_length = HEAD.unpack(await connection.read_exactly(HEAD.size))
    if json_length + bodies_length > ANSWERS_LIMIT:
        raise HungUp
    heads = json.loads(await connection.read_exactly(json_length))
    answers = {}
    for head in heads:
        body = await connection.read_exactly(head["length"])
        answers[head["id"]] = Answer(head["status"], head["type"], body, head.get("retry_after"))
    return answers


def _encode(heads: list[dict[str, Any]], bodies: list[bytes]) -> list[bytes]:
    text = json.dumps(heads, separators=(",", ":")).encode("ascii")
    return [HEAD.pack(len(text), sum(map(len, bodies))), text, *bodies]
