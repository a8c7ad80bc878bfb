"""The endpoint for the exporters of the container's apps: OTLP over HTTP on the container's loopback.

Traces and logs are accepted, and each request is held until the service has answered it (`export_queue.py`). Everything
else is answered as by a collector without a pipeline for it.

A request that the service has not fetched within `FETCH_SECONDS` is answered with 503 and `Retry-After`, and one that
it has fetched but not answered, after `ANSWER_SECONDS`. Exporters give up after ten seconds, so they can still retry.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from typing import Any

from .errors import HungUp, Refused
from .export_queue import Answer, Export, ExportQueue
from .http1 import Connection, HttpRequest, response_head
from .sockets import accept_connections

PATHS = ("/v1/traces", "/v1/logs")
BODY_LIMIT = 4 * 1024 * 1024
#: Most bytes of bodies that are being received, over all connections.
BODIES_LIMIT = 16 * 1024 * 1024
CONNECTIONS_LIMIT = 128
FETCH_SECONDS = 4.0
ANSWER_SECONDS = 8.5
#: A connection without a request for this long is closed.
IDLE_SECONDS = 90.0
RETRY_AFTER_SECONDS = 2
_BACKLOG = 64
_JSON = "application/json"
_PROTOBUF = "application/x-protobuf"


class OtlpServer:
    """The listener and its connections."""

    def __init__(self, queue: ExportQueue, port: int) -> None:
        self._queue = queue
        self._requested_port = port
        #: The port that it listens on; None while it does not.
        self.port: int | None = None
        self._body_bytes = 0

    async def serve(self) -> None:
        """Serve until cancelled. If the port is in use, log that and return: everything else goes on without it."""
        try:
            listener = socket.create_server(("127.0.0.1", self._requested_port), backlog=_BACKLOG)
        except OSError as error:
            print(f"apps cannot report to 127.0.0.1:{self._requested_port}: {error}", file=sys.stderr, flush=True)
            return
        with listener:
            listener.setblocking(False)
            self.port = listener.getsockname()[1]
            await accept_connections(listener, self._serve_connection, asyncio.Semaphore(CONNECTIONS_LIMIT))

    async def _serve_connection(self, sock: socket.socket) -> None:
        """Answer one request after the other until the exporter closes the connection or is idle for too long."""
        connection = Connection(sock)
        with contextlib.suppress(HungUp, OSError):  # a timeout is an OSError too
            close = False
            while not close:
                try:
                    async with asyncio.timeout(IDLE_SECONDS):
                        request = await connection.read_request()
                    if request is None:
                        return
                    answer = await self._respond(request)
                    close = request.close_after
                except Refused as error:
                    answer, close = refusal(error.status, "", error.message), True
                await connection.send(*_encode(answer, close))
                # Requests that were read ahead must not be answered in one go: other tasks have to run.
                await asyncio.sleep(0)

    async def _respond(self, request: HttpRequest) -> Answer:
        """Read the body of a request and return the answer."""
        async with asyncio.timeout(IDLE_SECONDS):
            body = await self._read_body(request)
        kind = request.headers.get("content-type", "")
        path = request.target.partition("?")[0]
        if path not in PATHS:
            return refusal(404, kind, f"{path} is not served: only {' and '.join(PATHS)} are")
        if request.method != "POST":
            return refusal(405, kind, f"{path} accepts POST only")
        if body is None:
            return refusal(413, kind, f"the body is longer than {BODY_LIMIT} bytes")
        export = Export(path, request.headers, body)
        if not self._queue.add(export):
            return refusal(503, kind, "too many requests wait for the service")
        try:
            return await self._wait_for_answer(request.connection, export)
        finally:
            self._queue.drop(export)

    async def _read_body(self, request: HttpRequest) -> bytes | None:
        """The body; None if it is too long. Raises Refused if the bodies of all connections together are."""
        body = bytearray()
        fits = True
        try:
            while piece := await request.read():
                fits = fits and len(body) + len(piece) <= BODY_LIMIT
                if fits:
                    body += piece
                    self._body_bytes += len(piece)
                if self._body_bytes > BODIES_LIMIT:
                    raise Refused("agent_refused", "too many bodies at once", 503)
        finally:
            self._body_bytes -= len(body)
        return bytes(body) if fits else None

    async def _wait_for_answer(self, connection: Connection, export: Export) -> Answer:
        with connection.hung_up() as hung_up:
            events: set[asyncio.Future[Any]] = {export.answer, hung_up}
            await asyncio.wait(events, timeout=FETCH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not self._queue.is_waiting(export):
                left = ANSWER_SECONDS - FETCH_SECONDS
                await asyncio.wait(events, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if export.answer.done():
            return export.answer.result()
        if hung_up.done():
            raise HungUp
        return refusal(503, export.media_type, "the service does not take records at the moment")


def refusal(status: int, media_type: str, message: str) -> Answer:
    """An error answer of OTLP, in the encoding of the request."""
    retry_after = RETRY_AFTER_SECONDS if status == 503 else None
    if media_type.startswith(_JSON):
        return Answer(status, _JSON, json.dumps({"message": message}).encode("ascii"), retry_after)
    text = message.encode()[:127]
    # A google.rpc.Status, whose field 2 is the message.
    return Answer(status, _PROTOBUF, bytes((0x12, len(text))) + text, retry_after)


def _encode(answer: Answer, close: bool) -> list[bytes]:
    headers = {}
    if answer.media_type:
        headers["content-type"] = answer.media_type
    if answer.retry_after is not None:
        headers["retry-after"] = str(answer.retry_after)
    if close:
        headers["connection"] = "close"
    headers["content-length"] = str(len(answer.body))
    return [response_head(answer.status, headers), answer.body]
