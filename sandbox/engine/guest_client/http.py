"""Calls of a guest agent by HTTP over any connected socket.

A call is `POST /function` with JSON arguments first in the body and raw bytes after them; `sandbox/guest/request.py` is
the other side.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

from sandbox.engine.guest_client.connections import HEAD_LIMIT, Answer, ConnectionPool
from sandbox.engine.guest_client.errors import answer_too_large, guest_error, unreachable
from sandbox.errors import GuestError

#: Returns a connected, non-blocking socket to the guest agent. Raises GuestError `agent_unreachable`, or OSError.
Connector = Callable[[], Awaitable[socket.socket]]

ARGS_LENGTH = "Sandbox-Args-Length"
#: Longest path of a unix socket address on Linux, in bytes.
LONGEST_SOCKET_PATH = 107
CONNECT_SECONDS = 10.0
#: Requests to one container at once.
CONNECTIONS = 64
IDLE_CONNECTIONS = 4
#: While a request waits for its answer and nothing has been heard from the guest agent for so long, it is asked whether
#: it is there. The first number is the silence after which it is asked, the second how long it has to answer.
QUIET_SECONDS = 6.0
ALIVE_SECONDS = 6.0


class UnixConnector:
    """Connects to the guest agent's socket in a folder that is shared with the host. The path may have any length."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)

    async def __call__(self) -> socket.socket:
        if len(os.fsencode(self._path)) <= LONGEST_SOCKET_PATH:
            return await self._connect(self._path)
        folder = os.open(os.path.dirname(self._path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return await self._connect(f"/proc/self/fd/{folder}/{os.path.basename(self._path)}")
        finally:
            os.close(folder)

    async def _connect(self, path: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            while True:
                try:
                    sock.connect(path)  # a unix socket connects at once, or fails because its queue is full
                except BlockingIOError:
                    await asyncio.sleep(0.005)
                else:
                    return sock
        except BaseException:
            sock.close()
            raise


async def connect(connector: Connector) -> socket.socket:
    """Connect within CONNECT_SECONDS. Raises GuestError `agent_unreachable`."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await connector()
    except TimeoutError:
        raise unreachable("no connection in time") from None
    except OSError as error:
        raise unreachable(error.strerror or error) from error


def _encode(args: dict[str, Any]) -> bytes:
    return json.dumps(args, separators=(",", ":")).encode("ascii")


class _Waiting:
    """A request that waits for its answer, and the error with which it is to end, if it is."""

    def __init__(self, deadline: asyncio.Timeout) -> None:
        self._deadline = deadline
        self.error: GuestError | None = None

    def end(self, error: GuestError) -> None:
        if self.error is None:
            self.error = error
            self._deadline.reschedule(asyncio.get_running_loop().time())


class GuestHttp:
    """Requests over a pool of keep-alive connections, which are made when they are first needed.

    Any number of tasks may use it at once; not thread-safe. A cancelled request closes only its own connection.
    """

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        #: When an answer came last, in the time of the event loop.
        self._heard = 0.0
        #: The requests that wait for their answers.
        self._waiting: set[_Waiting] = set()
        self._pool = ConnectionPool(
            lambda: connect(connector), most=CONNECTIONS, most_idle=IDLE_CONNECTIONS, seconds=CONNECT_SECONDS
        )

    async def open(
        self,
        function: str,
        args: dict[str, Any],
        *,
        raw: bytes | AsyncIterator[bytes] = b"",
        silence_seconds: float | None = 120.0,
    ) -> Answer:
        """Send a request and read the head of its answer. Raises GuestError for every failure and refusal.

        `silence_seconds` is the longest time in which nothing may be received or sent; None for no limit.
        """
        encoded = _encode(args)
        lines = f"POST /{function} HTTP/1.1\r\nHost: agent\r\n{ARGS_LENGTH}: {len(encoded)}\r\n"
        body: AsyncIterator[bytes] | None = None
        if isinstance(raw, bytes):
            head = f"{lines}Content-Length: {len(encoded) + len(raw)}\r\n\r\n".encode("ascii") + encoded + raw
        else:
            body = raw
            chunked = f"{lines}Transfer-Encoding: chunked\r\n\r\n{len(encoded):x}\r\n"
            head = b"%b%b\r\n" % (chunked.encode("ascii"), encoded)
        answer = await self._answered(self._pool.request(head, body, silence_seconds))
        if answer.status != HTTPStatus.OK:
            document = json.loads(await answer.read_all())
            raise guest_error(document["code"], document["message"])
        return answer

    async def _answered(self, request: Awaitable[Answer]) -> Answer:
        """Send the request and wait for its answer, for as long as the guest agent is there.

        A command may run for hours without an answer. In a container that is paused, it would do nothing for as long.
        """
        loop = asyncio.get_running_loop()
        watch: asyncio.Task[None] | None = None

        def begin() -> None:
            nonlocal watch
            watch = loop.create_task(self._watch(loop.time() - QUIET_SECONDS, waiting))

        try:
            async with asyncio.timeout(None) as deadline:
                waiting = _Waiting(deadline)
                self._waiting.add(waiting)
                timer = loop.call_later(QUIET_SECONDS, begin)
                try:
                    answer = await request
                finally:
                    timer.cancel()
                    self._waiting.discard(waiting)
                    if watch is not None:
                        watch.cancel()
        except TimeoutError:
            raise waiting.error or unreachable("it took too long") from None
        self._heard = loop.time()
        return answer

    def interrupt(self, error: GuestError) -> None:
        """End the requests that wait for their answers with this error."""
        for waiting in self._waiting:
            waiting.end(error)

    async def _watch(self, since: float, waiting: _Waiting) -> None:
        """End the request that waits since then as soon as the guest agent is silent."""
        loop = asyncio.get_running_loop()
        while True:
            quiet = loop.time() - max(since, self._heard)
            if quiet < QUIET_SECONDS:
                await asyncio.sleep(QUIET_SECONDS - quiet)
            elif await self._is_alive():
                self._heard = loop.time()
            else:
                silent = QUIET_SECONDS + ALIVE_SECONDS
                waiting.end(unreachable(f"nothing was heard from it for {silent:.0f} s; its container may be paused"))
                return

    async def _is_alive(self) -> bool:
        """Whether the guest agent answers on a connection of its own."""
        try:
            async with asyncio.timeout(ALIVE_SECONDS):
                sock, _ = await self.switch("POST", "/ping", {})
                sock.close()
        except (GuestError, TimeoutError):
            return False
        return True

    async def call(
        self,
        function: str,
        args: dict[str, Any] | None = None,
        *,
        raw: bytes | AsyncIterator[bytes] = b"",
        silence_seconds: float | None = 120.0,
    ) -> tuple[dict[str, Any], bytes]:
        """Send a request and read the whole answer: its JSON, and the raw bytes after it."""
        answer = await self.open(function, args or {}, raw=raw, silence_seconds=silence_seconds)
        body, length = await answer.read_all(), int(answer.headers.get(ARGS_LENGTH.lower(), "0"))
        return json.loads(body[:length]), body[length:]

    async def switch(
        self, method: str, target: str, args: dict[str, Any] | None = None
    ) -> tuple[socket.socket, dict[str, str]]:
        """Make a new connection and switch it to another protocol than HTTP. Return it with the headers of the answer,
        their names in lower case; the next bytes to be read from the socket are the first of that protocol. Raises
        GuestError unless the answer is 200 or 101."""
        body = b"" if args is None else _encode(args)
        head = f"{method} {target} HTTP/1.1\r\nHost: agent\r\n"
        if args is not None:
            head += f"{ARGS_LENGTH}: {len(body)}\r\nContent-Length: {len(body)}\r\n"
        sock = await connect(self._connector)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_sendall(sock, head.encode("ascii") + b"\r\n" + body)
                headers = await _read_switched(sock)
        except TimeoutError:
            sock.close()
            raise unreachable("no answer in time") from None
        except OSError as error:
            sock.close()
            raise unreachable(error.strerror or error) from error
        except BaseException:
            sock.close()
            raise
        return sock, headers

    def close(self) -> None:
        """Close the connections. Requests in progress fail."""
        self._pool.close()


async def _read_switched(sock: socket.socket) -> dict[str, str]:
    """Read the head of the answer and nothing after it, because that belongs to the caller who gets the socket. Return
    its headers."""
    loop = asyncio.get_running_loop()
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        byte = await loop.sock_recv(sock, 1)
        if not byte or len(head) > HEAD_LIMIT:
            raise unreachable("it hung up")
        head += byte
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    if lines[0].split(" ")[1] in ("101", "200"):
        return headers
    body = bytearray()
    length = int(headers["content-length"])
    if length > HEAD_LIMIT:
        raise answer_too_large()
    while len(body) < length:
        part = await loop.sock_recv(sock, HEAD_LIMIT)
        if not part:
            raise unreachable("it hung up")
        body += part
    document = json.loads(body)
    raise guest_error(document["code"], document["message"])
