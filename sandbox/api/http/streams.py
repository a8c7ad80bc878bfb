"""Server-sent events as a response: with heartbeats, and ended properly when the service stops."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse
from starlette.types import Message, Receive, Scope, Send

#: A comment is sent this often, so that proxies do not close a quiet stream.
HEARTBEAT_SECONDS = 15
#: A client whose connection accepts no data for this long is disconnected; it can resume with Last-Event-ID.
SEND_TIMEOUT_SECONDS = 60.0
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class _EventStream(EventSourceResponse):
    """Ends the response properly when the service stops; the base class would leave it unfinished."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = ended = False

        async def observed(message: Message) -> None:
            nonlocal begun, ended
            begun = True
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        await super().__call__(scope, receive, observed)
        if begun and not ended:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def event_stream(chunks: AsyncIterator[bytes]) -> EventSourceResponse:
    """A response that streams encoded server-sent events (see `events/sse.py`), with heartbeats in between."""
    return _EventStream(chunks, ping=HEARTBEAT_SECONDS, send_timeout=SEND_TIMEOUT_SECONDS, headers=_HEADERS)
