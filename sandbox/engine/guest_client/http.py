"""HTTP to a guest agent over any connected socket, and the translation of its errors.

A call is `POST /function` with JSON arguments first in the body and raw bytes after them; `sandbox/guest/request.py` is
the other side.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpcore

from sandbox.engine.guest_client.socket_stream import ConnectBackend
from sandbox.errors import GuestError, Kind

#: Returns a connected, non-blocking socket to the guest agent. Raises GuestError `agent_unreachable`, or OSError.
Connector = Callable[[], Awaitable[socket.socket]]

ARGS_LENGTH = "Sandbox-Args-Length"
#: Longest path of a unix socket address on Linux, in bytes.
LONGEST_SOCKET_PATH = 107
#: Writes of less than this are delayed until the answer is read.
COALESCE_BYTES = 16 * 1024
CONNECT_SECONDS = 10.0
#: Requests to one container at once.
CONNECTIONS = 64
IDLE_CONNECTIONS = 4
HEAD_LIMIT = 16 * 1024
#: Most bytes of an answer that is read as a whole. The longest are the two outputs of a command, 1 MiB each.
ANSWER_BYTES = 8 * 1024 * 1024
#: While a request waits for its answer and nothing has been heard from the guest agent for so long, it is asked whether
#: it is there. The first number is the silence after which it is asked, the second how long it has to answer.
QUIET_SECONDS = 6.0
ALIVE_SECONDS = 6.0

_KINDS = {
    "process_not_found": Kind.NOT_FOUND,
    "file_not_found": Kind.NOT_FOUND,
    "process_exists": Kind.CONFLICT,
    "file_refused": Kind.INVALID,
    "command_not_found": Kind.INVALID,
    "disk_full": Kind.UNAVAILABLE,
    "port_not_open": Kind.UNAVAILABLE,
    "agent_unreachable": Kind.UNAVAILABLE,
    "agent_refused": Kind.CONFLICT,
    "answer_too_large": Kind.TOO_LARGE,
}
_HINTS = {
    "process_not_found": "List the processes to see which names are known.",
    "file_not_found": "List the folder to see what is there; relative paths are below /workspace.",
    "process_exists": "Choose another name, or end the process first.",
    "file_refused": "Choose a path that the sandbox's user may use in this way.",
    "disk_full": "Remove files in the sandbox, or free disk space on its host, then try again.",
    "command_not_found": "Install the program first, or give its full path.",
    "port_not_open": "Wait until the app listens; its log says why it does not.",
    "agent_unreachable": "See whether the container runs, and what its log says.",
    "answer_too_large": "Ask for less: a subfolder, or fewer levels.",
    "agent_refused": "See what the container is doing: its processes, memory and log.",
}


def guest_error(code: str, message: str) -> GuestError:
    """The error for a code of the guest agent, with its kind and hint. An unknown code becomes `agent_refused`."""
    if code not in _KINDS:
        code = "agent_refused"
    return GuestError(message, code=code, kind=_KINDS[code], hint=_HINTS[code])


def unreachable(reason: object) -> GuestError:
    """The error for a guest agent that does not answer."""
    return guest_error("agent_unreachable", f"the agent in the container does not answer: {reason}")


def answer_too_large() -> GuestError:
    """The error for an answer, or a part of a stream, with more than ANSWER_BYTES."""
    return guest_error("answer_too_large", f"the agent in the container answers with more than {ANSWER_BYTES:,} bytes")


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


class Response:
    """An answer whose head has been read and is not an error. It must be read to its end or closed."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response
        headers = {name.lower(): value for name, value in response.headers}
        self.json_length = int(headers.get(ARGS_LENGTH.lower().encode(), b"0"))
        self._parts = self._read()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._parts)
        except httpcore.TimeoutException as error:
            await self.aclose()
            raise unreachable(error) from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            await self.aclose()
            raise unreachable(f"it broke off ({error})") from error
        except BaseException:
            await self.aclose()
            raise

    async def _read(self) -> AsyncIterator[bytes]:
        async for part in self._response.aiter_stream():
            yield part

    async def document(self) -> tuple[dict[str, Any], bytes]:
        """The whole answer: its JSON, and the raw bytes after it. Raises GuestError `answer_too_large`."""
        body = bytearray()
        async for part in self:
            body += part
            if len(body) > ANSWER_BYTES:
                await self.aclose()
                raise answer_too_large()
        return json.loads(body[: self.json_length]), bytes(body[self.json_length :])

    async def aclose(self) -> None:
        await self._response.aclose()


def _encode(args: dict[str, Any]) -> bytes:
    return json.dumps(args, separators=(",", ":")).encode("ascii")


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        if part:
            yield part


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
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=CONNECTIONS,
            max_keepalive_connections=IDLE_CONNECTIONS,
            network_backend=ConnectBackend(lambda _host, _port: connect(connector), COALESCE_BYTES),
        )

    async def open(
        self,
        function: str,
        args: dict[str, Any],
        *,
        raw: bytes | AsyncIterator[bytes] = b"",
        silence_seconds: float | None = 120.0,
    ) -> Response:
        """Send a request and read the head of its answer. Raises GuestError for every failure and refusal.

        `silence_seconds` is the longest time in which nothing may be received or sent; None for no limit.
        """
        head = _encode(args)
        headers: dict[bytes | str, bytes | str] = {ARGS_LENGTH: str(len(head)), "Host": "agent"}
        if isinstance(raw, bytes):
            content: bytes | AsyncIterator[bytes] = head + raw
            headers["Content-Length"] = str(len(head) + len(raw))
        else:
            content = _chain(head, raw)
            headers["Transfer-Encoding"] = "chunked"
        request = httpcore.Request(
            "POST",
            f"http://agent/{function}",
            headers=headers,
            content=content,
            extensions={"timeout": {"read": silence_seconds, "write": silence_seconds, "pool": CONNECT_SECONDS}},
        )
        try:
            answer = await self._answered(request)
        except httpcore.PoolTimeout:
            raise guest_error("agent_refused", f"more than {CONNECTIONS} requests to this container at once") from None
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise unreachable(error or "it hung up") from error
        response = Response(answer)
        if answer.status != 200:
            document, _ = await response.document()
            raise guest_error(document["code"], document["message"])
        return response

    async def _answered(self, request: httpcore.Request) -> httpcore.Response:
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
                    answer = await self._pool.handle_async_request(request)
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
        response = await self.open(function, args or {}, raw=raw, silence_seconds=silence_seconds)
        return await response.document()

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

    async def aclose(self) -> None:
        with contextlib.suppress(RuntimeError):  # httpcore raises it if requests are in progress; they fail then
            await self._pool.aclose()


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
