"""Forwards one HTTP request. Request and response are streamed and never buffered as a whole."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_from_bytes

import anyio
import httpcore
from starlette.types import Receive, Scope

from sandbox.errors import Kind, SandboxError
from sandbox.preview.access import without_link
from sandbox.preview.call import Call
from sandbox.preview.headers import Framing, Headers, response_headers
from sandbox.preview.tunnels import Channel

log = logging.getLogger(__name__)

#: Every printable ASCII character stays as the browser sent it; other bytes have no place in a request line.
_SAFE = "".join(map(chr, range(0x21, 0x7F)))
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})


class AppDidNotAnswer(SandboxError):
    """The app took the connection and then hung up, or spoke something that is not HTTP."""

    code = "app_hung_up"
    kind = Kind.UNAVAILABLE


class RequestRefused(SandboxError):
    """The request cannot be sent on as it is."""

    code = "bad_request"
    kind = Kind.INVALID


class ClientGone(Exception):
    """The client hung up before its request was complete."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a request goes."""

    channel: Channel
    roles: tuple[str, ...]
    port: int
    #: Called when the app answers, and for every WebSocket message of the client: somebody uses the session.
    on_use: Callable[[], None]


class Body:
    """The request's body as it arrives. Afterwards, `until_gone` tells when the client hangs up."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._settled = anyio.Event()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body's bytes. Raises ClientGone if it ends early, so that what was sent on is never taken for whole."""
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            if chunk := message.get("body", b""):
                yield chunk
            more = message.get("more_body", False)
        self._settled.set()

    def settle(self) -> None:
        """The app has answered: whatever the client still sends is of no interest."""
        self._settled.set()

    async def until_gone(self) -> None:
        """Return when the client has hung up. Waits until nobody else reads."""
        await self._settled.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def forward(call: Call, upstream: Upstream, headers: Headers, framing: Framing) -> None:
    """Send the request to the app and its answer to the client. A client that hangs up ends the app's connection.

    Raises GuestError, AppDidNotAnswer or RequestRefused, only while nothing has been answered yet. An answer that
    breaks off later breaks off for the client too.
    """
    body = Body(call.receive)
    if not framing.has_body:
        body.settle()
    failure: SandboxError | None = None

    async def exchange(group: anyio.abc.TaskGroup) -> None:
        nonlocal failure
        try:
            await _exchange(call, body, upstream, headers, framing)
        except SandboxError as error:
            failure = error
        except ClientGone:
            log.debug("the client hung up while sending its request")
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(exchange, group)
        await body.until_gone()
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _exchange(call: Call, body: Body, upstream: Upstream, headers: Headers, framing: Framing) -> None:
    response = await _ask(call.scope, body, upstream, headers, framing)
    try:
        body.settle()
        upstream.on_use()
        await call.send(
            {
                "type": "http.response.start",
                "status": response.status,
                "headers": response_headers(list(response.headers), status=response.status, request_id=call.request_id),
            }
        )
        try:
            async for chunk in response.aiter_stream():
                await call.send({"type": "http.response.body", "body": chunk, "more_body": True})
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            # Without the last message the server in front cuts the connection, so a part is not taken for the whole.
            log.info("the app's answer broke off: %s", error)
            return
        await call.send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        with anyio.CancelScope(shield=True):
            await response.aclose()


async def _ask(scope: Scope, body: Body, upstream: Upstream, headers: Headers, framing: Framing) -> httpcore.Response:
    """The app's answer, its body unread. Asked once more if a kept connection turns out to have been closed."""
    fresh = False

    async def trace(event: str, _: dict[str, Any]) -> None:
        nonlocal fresh
        fresh = fresh or event == "connection.connect_tcp.started"

    may_repeat = scope["method"] in _REPEATABLE and not framing.has_body
    while True:
        request = httpcore.Request(
            method=scope["method"].encode("latin-1"),
            url=httpcore.URL(
                scheme=b"http", host=".".join(upstream.roles).encode(), port=upstream.port, target=request_target(scope)
            ),
            headers=headers,
            content=body.chunks() if framing.has_body else b"",
            extensions={"trace": trace},
        )
        try:
            response = await upstream.channel.pool.handle_async_request(request)
        except httpcore.LocalProtocolError as error:
            raise RequestRefused(f"the request is not valid HTTP/1.1: {error}") from error
        except (httpcore.NetworkError, httpcore.RemoteProtocolError) as error:
            if may_repeat and not fresh:
                continue
            raise AppDidNotAnswer(
                f"the app on port {upstream.port} took the connection but gave no HTTP answer: {error or 'it hung up'}",
                hint="Look at the app's log; it may have crashed on this request, or may not speak HTTP on this port.",
            ) from error
        if response.status < 200:
            await response.aclose()
            raise AppDidNotAnswer(f"the app on port {upstream.port} answered {response.status}, which ends nothing")
        return response


def request_target(scope: Scope) -> bytes:
    """Path and query as the client sent them, without the link's parameter; bytes beyond ASCII percent-encoded."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query = without_link(scope["query_string"])
    return quote_from_bytes(path + b"?" + query if query else path, safe=_SAFE).encode()
