"""Where the exporters of the container's apps send to: OTLP over HTTP, on the container's loopback.

Traces and logs are taken and held until the service has answered them (`exports.py`); anything else is answered as by a
collector that has no such pipeline. One thread serves all connections, so that what sandboxed code does with them costs
neither the agent's workers nor more of the container's processes.

A request that nobody has come for within `FETCH_SECONDS` is answered with 503 and `Retry-After`; one that was sent to
the service, after `ANSWER_SECONDS`. Exporters give up ten seconds after they began, so they can try again in time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from .exports import Answer, Export, Exports
from .wire import HEAD_LIMIT, PIECE, HungUp, Refused, bad_request

PATHS = ("/v1/traces", "/v1/logs")
BODY_LIMIT = 4 * 1024 * 1024
#: Bodies under way, of all connections together.
BODIES_LIMIT = 16 * 1024 * 1024
CONNECTIONS_LIMIT = 128
FETCH_SECONDS = 4.0
ANSWER_SECONDS = 8.5
#: A connection without a request for so long is closed.
IDLE_SECONDS = 90.0
RETRY_AFTER = 2
_TICK_SECONDS = 0.25
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    429: "Too Many Requests",
    503: "Service Unavailable",
}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_JSON = "application/json"
_PROTOBUF = "application/x-protobuf"


class HttpRequest:
    """One request, its body aside."""

    def __init__(self, head: str) -> None:
        lines = head.split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise bad_request("the request line is malformed")
        self.method, target, version = words
        self.path = target.partition("?")[0]
        self.headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise bad_request("a header is malformed")
            self.headers[name.strip().lower()] = value.strip()
        self.close_after = "close" in self.headers.get("connection", "").lower() or version == "HTTP/1.0"
        self.chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        #: The body was longer than is taken, and was thrown away.
        self.too_large = False


def read_request(buffer: bytearray, body: bytearray) -> Generator[bytes, None, HttpRequest]:
    """Take one request out of the buffer, its content into `body`. Whenever more has to be received it yields, with
    what is to be sent before. Refused if it cannot be understood."""
    request = HttpRequest((yield from _until(buffer, b"\r\n\r\n")).decode("latin-1"))
    if request.headers.get("expect", "").lower() == "100-continue":
        yield _CONTINUE
    if not request.chunked:
        yield from _content(request, buffer, body, _number(request.headers.get("content-length", "0"), 10))
        return request
    while True:
        size = _number((yield from _until(buffer, b"\r\n")).split(b";")[0].strip().decode("latin-1"), 16)
        if size == 0:
            break
        yield from _content(request, buffer, body, size)
        yield from _until(buffer, b"\r\n")
    while (yield from _until(buffer, b"\r\n")):
        pass
    return request


def _until(buffer: bytearray, end: bytes) -> Generator[bytes, None, bytes]:
    while (at := buffer.find(end)) < 0:
        if len(buffer) > HEAD_LIMIT:
            raise bad_request("a line or the head of the request is too long")
        yield b""
    data = bytes(buffer[:at])
    del buffer[: at + len(end)]
    return data


def _content(request: HttpRequest, buffer: bytearray, body: bytearray, left: int) -> Generator[bytes, None, None]:
    while left:
        if not buffer:
            yield b""
        piece = buffer[:left]
        del buffer[: len(piece)]
        left -= len(piece)
        if len(body) + len(piece) > BODY_LIMIT:
            request.too_large = True
            body.clear()
        if not request.too_large:
            body += piece


def _number(text: str, base: int) -> int:
    if not text or len(text) > 18 or not all(c in "0123456789abcdefABCDEF"[: 22 if base == 16 else 10] for c in text):
        raise bad_request("a length is not a number")
    return int(text, base)


class Exporters:
    """The listener and its connections. Nothing of it can keep the agent from starting."""

    def __init__(self, exports: Exports, port: int) -> None:
        self.exports = exports
        #: The port it listens on; None while it does not.
        self.port: int | None = None
        self._wanted_port = port
        self._poller = select.poll()
        self._connections: dict[int, _Connection] = {}
        self._answers: deque[tuple[_Connection, Export, Answer]] = deque()
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)

    def start(self) -> None:
        """Listen from now on. Where the port is taken, or no thread is to be had, say so and leave it."""
        try:
            listener = socket.create_server(("127.0.0.1", self._wanted_port), backlog=64)
            listener.setblocking(False)
            self.port = listener.getsockname()[1]
            threading.Thread(target=self._run, args=(listener,), daemon=True).start()
        except (OSError, RuntimeError) as error:
            self.port = None
            print(f"apps cannot report to 127.0.0.1:{self._wanted_port}: {error}", file=sys.stderr, flush=True)

    def answer(self, connection: _Connection, export: Export, answer: Answer) -> None:
        """Pass on the service's answer. From any thread."""
        self._answers.append((connection, export, answer))
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def body_bytes(self) -> int:
        """Bodies under way."""
        return sum(len(connection.body) for connection in self._connections.values())

    def _run(self, listener: socket.socket) -> None:
        self._poller.register(listener, select.POLLIN)
        self._poller.register(self._wake_read, select.POLLIN)
        while True:
            for fd, events in self._poller.poll(self._patience()):
                if fd == self._wake_read:
                    os.read(fd, 4096)
                elif fd == listener.fileno():
                    self._accept(listener)
                elif (connection := self._connections.get(fd)) is not None:
                    self._attend(connection, connection.ready, events)
            while self._answers:
                connection, export, answer = self._answers.popleft()
                if connection.export is export:
                    self._attend(connection, connection.respond, answer)
            now = time.monotonic()
            for connection in list(self._connections.values()):
                self._attend(connection, connection.look_at_clock, now)
            # Who comes when there are too many waits until one has gone.
            full = len(self._connections) >= CONNECTIONS_LIMIT
            self._poller.modify(listener, 0 if full else select.POLLIN)

    def _patience(self) -> float | None:
        """Milliseconds until the clock has to be looked at."""
        if not self._connections:
            return None
        held = any(connection.export is not None for connection in self._connections.values())
        return 1000 * (_TICK_SECONDS if held else IDLE_SECONDS / 3)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptor or memory for it now
            time.sleep(0.05)
            return
        sock.setblocking(False)
        connection = _Connection(self, sock)
        self._connections[sock.fileno()] = connection
        self._attend(connection, lambda _: None, None)

    def _attend(self, connection: _Connection, work: Callable[[Any], None], argument: Any) -> None:
        """Do it, and wait for what the connection then wants; close it when it is over or broken."""
        fd = connection.sock.fileno()
        if self._connections.get(fd) is not connection:
            return
        try:
            work(argument)
        except (HungUp, OSError):
            connection.over = True
        except Exception:  # noqa: BLE001 - this connection is lost, and no other
            sys.excepthook(*sys.exc_info())
            connection.over = True
        if not connection.over:
            self._poller.register(connection.sock, connection.wanted())
            return
        del self._connections[fd]
        with contextlib.suppress(KeyError):
            self._poller.unregister(fd)
        if connection.export is not None:
            self.exports.drop(connection.export)
        connection.sock.close()


class _Connection:
    """One exporter's connection: reads a request, holds it, answers it, and so on."""

    def __init__(self, exporters: Exporters, sock: socket.socket) -> None:
        self.sock = sock
        #: The request that waits for the service.
        self.export: Export | None = None
        self.body = bytearray()
        self.over = False
        self._exporters = exporters
        self._received = bytearray()
        self._out = b""
        self._close_after = False
        self._reading = read_request(self._received, self.body)
        #: When the last thing happened here; of a held request, when it came.
        self._since = time.monotonic()

    def wanted(self) -> int:
        """What to poll for. One whose request is held is not read from, only looked at whether it hangs up."""
        if self._out:
            return select.POLLOUT | select.POLLRDHUP
        return select.POLLRDHUP if self.export is not None else select.POLLIN

    def ready(self, events: int) -> None:
        """Go on, as far as that is possible now."""
        if self.export is not None or self._out:
            if events & (select.POLLRDHUP | select.POLLHUP | select.POLLERR):
                raise HungUp
            self._send()
            self._advance()
            return
        data = self.sock.recv(PIECE)
        if not data:
            raise HungUp
        self._since = time.monotonic()
        self._received += data
        self._advance()

    def respond(self, answer: Answer) -> None:
        """Answer the request that is held."""
        self.export = None
        self._answer(answer)
        self._advance()

    def look_at_clock(self, now: float) -> None:
        """Answer for a service that does not; close what has no use."""
        waited = now - self._since
        if self.export is None:
            if waited > IDLE_SECONDS:
                raise HungUp
            return
        not_fetched = waited > FETCH_SECONDS and self._exporters.exports.is_waiting(self.export)
        if not_fetched or waited > ANSWER_SECONDS:
            self._exporters.exports.drop(self.export)
            self.respond(refusal(503, self.export.media_type, "the service does not take records at the moment"))

    def _advance(self) -> None:
        """Take requests out of what was received, until one is held or more has to come."""
        while self.export is None and not self._out and not self.over:
            try:
                if data := next(self._reading):
                    self.sock.sendall(data)
                    continue
            except StopIteration as end:
                self._take(end.value)
                continue
            except Refused as error:
                self._close_after = True
                self._answer(refusal(error.status, "", error.message))
                return
            if self._exporters.body_bytes() > BODIES_LIMIT:
                self._close_after = True
                self._answer(refusal(503, "", "too many bodies at once"))
            return

    def _take(self, request: HttpRequest) -> None:
        """A whole request has been read."""
        body = bytes(self.body)
        self.body.clear()
        self._reading = read_request(self._received, self.body)
        self._close_after = request.close_after
        kind = request.headers.get("content-type", "")
        if request.path not in PATHS:
            self._answer(refusal(404, kind, f"{request.path} is not taken: only {' and '.join(PATHS)} are"))
        elif request.method != "POST":
            self._answer(refusal(405, kind, f"{request.path} takes POST alone"))
        elif request.too_large:
            self._answer(refusal(413, kind, f"the body is longer than {BODY_LIMIT} bytes"))
        else:
            export = Export(request.path, request.headers, body, partial(self._exporters.answer, self))
            if self._exporters.exports.add(export):
                self.export = export
            else:
                self._answer(refusal(503, kind, "too many requests wait for the service"))

    def _answer(self, answer: Answer) -> None:
        lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Refused')}"]
        if answer.media_type:
            lines.append(f"content-type: {answer.media_type}")
        if answer.retry_after is not None:
            lines.append(f"retry-after: {answer.retry_after}")
        if self._close_after:
            lines.append("connection: close")
        lines.append(f"content-length: {len(answer.body)}\r\n\r\n")
        self._out = "\r\n".join(lines).encode("latin-1") + answer.body
        self._send()

    def _send(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._out = self._out[self.sock.send(self._out) :]
        self._since = time.monotonic()
        if not self._out:
            self.over = self._close_after


def refusal(status: int, media_type: str, message: str) -> Answer:
    """OTLP's form of a failure, in the encoding of the request."""
    if media_type.startswith(_JSON):
        return Answer(status, _JSON, json.dumps({"message": message}).encode("ascii"), _retry_after(status))
    text = message.encode()[:127]
    # google.rpc.Status: field 2 is the message.
    return Answer(status, _PROTOBUF, bytes((0x12, len(text))) + text, _retry_after(status))


def _retry_after(status: int) -> int | None:
    return RETRY_AFTER if status == 503 else None
