"""Relays a WebSocket in both directions, including its subprotocol and close codes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

import anyio
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.http11 import Response
from websockets.typing import Origin, Subprotocol

from sandbox.preview.call import Call
from sandbox.preview.headers import Headers, accepted_headers, values
from sandbox.preview.http import AppDidNotAnswer, RequestRefused, Upstream, request_target

log = logging.getLogger(__name__)

#: Codes that stand for the absence of a close frame and may not be sent in one (RFC 6455 7.4.1).
_UNSENDABLE = frozenset({1004, 1005, 1006, 1015})


class HandshakeDenied(Exception):
    """The app answered the handshake with an ordinary HTTP response."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"the app answered the WebSocket handshake with {response.status_code}")
        self.status = response.status_code
        self.headers = accepted_headers(_raw(response))
        self.body = bytes(response.body or b"")


async def relay(
    call: Call,
    upstream: Upstream,
    headers: Headers,
    *,
    max_message_bytes: int,
    handshake_timeout_seconds: float,
) -> None:
    """Relay until either side closes.

    Raises GuestError, AppDidNotAnswer, RequestRefused or HandshakeDenied, only before the handshake is answered.
    """
    app = await _open(call.scope, upstream, headers, max_message_bytes, handshake_timeout_seconds)
    try:
        upstream.on_use()
        await call.send(
            {
                "type": "websocket.accept",
                "subprotocol": app.subprotocol,
                "headers": accepted_headers(_raw(app.response)),
            }
        )
        async with anyio.create_task_group() as group:

            async def to_app() -> None:
                await _client_to_app(call.receive, app, upstream.on_use)
                group.cancel_scope.cancel()

            group.start_soon(to_app)
            await _app_to_client(app, call.send)
            group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await app.close()


async def _open(
    scope: Scope, upstream: Upstream, headers: Headers, max_message_bytes: int, timeout_seconds: float
) -> ClientConnection:
    tunnel = await upstream.channel.open_tunnel(upstream.roles, upstream.port)
    origins = values(scope["headers"], b"origin")
    try:
        return await connect(
            f"ws://{values(scope['headers'], b'host')[0]}{request_target(scope).decode()}",
            sock=tunnel,
            origin=cast("Origin", origins[0]) if origins else None,
            subprotocols=cast("list[Subprotocol]", scope.get("subprotocols")) or None,
            additional_headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers],
            user_agent_header=None,
            compression=None,  # loopback; the server in front compresses towards the client if that asks for it
            proxy=None,
            open_timeout=timeout_seconds,
            ping_interval=None,  # the two ends know best when to ask whether the other is alive
            close_timeout=5,
            max_size=max_message_bytes,
        )
    except BaseException as error:
        tunnel.close()
        if isinstance(error.__cause__, InvalidStatus):  # a redirect, which would need another socket
            error = error.__cause__
        if isinstance(error, InvalidStatus):
            raise HandshakeDenied(error.response) from error
        if isinstance(error, (WebSocketException, OSError, EOFError)):
            raise AppDidNotAnswer(
                f"the app on port {upstream.port} took the connection but no WebSocket came about: {error}",
                hint="Look at the app's log, and check that it serves a WebSocket at this path.",
            ) from error
        if isinstance(error, ValueError):
            raise RequestRefused(f"the WebSocket handshake cannot be sent on: {error}") from error
        raise


async def _client_to_app(receive: Receive, app: ClientConnection, on_use: Callable[[], None]) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            code = message.get("code", 1005)
            await app.close(1001 if code in _UNSENDABLE else code, message.get("reason") or "")
            return
        on_use()
        data = message.get("text")
        try:
            await app.send(message.get("bytes") or b"" if data is None else data)
        except ConnectionClosed:
            return  # the other direction tells the client why


async def _app_to_client(app: ClientConnection, send: Send) -> None:
    try:
        while True:
            try:
                data = await app.recv()
            except ConnectionClosed as closed:
                await send(_close_message(closed))
                return
            await send({"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data})
    except OSError:
        log.debug("the client hung up while the app was sending")


def _close_message(closed: ConnectionClosed) -> dict[str, Any]:
    if closed.rcvd is not None:
        code = 1000 if closed.rcvd.code in _UNSENDABLE else closed.rcvd.code
        return {"type": "websocket.close", "code": code, "reason": closed.rcvd.reason}
    if closed.sent is not None:  # this proxy found fault with the app, such as a message that is too big
        return {"type": "websocket.close", "code": closed.sent.code, "reason": closed.sent.reason}
    return {"type": "websocket.close", "code": 1011, "reason": "the app hung up"}


def _raw(response: Response | None) -> Headers:
    if response is None:
        return []
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.raw_items()]
