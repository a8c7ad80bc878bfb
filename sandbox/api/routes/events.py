"""The launch over SSE, resumable; and what the apps print."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from sse_starlette import EventSourceResponse

from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.services import Injected
from sandbox.api.http.streams import event_stream
from sandbox.errors import InvalidInput

router = APIRouter(prefix="/api/v1/sessions", tags=["events"])


@router.get("/{session_id}/events", response_class=EventSourceResponse)
async def session_events(
    session_id: UUID,
    caller: CurrentCaller,
    services: Injected,
    after: Annotated[int | None, Query(ge=0, description="Continue after this seq")] = None,
    last_event_id: Annotated[str | None, Header(max_length=50)] = None,
) -> Response:
    """The launch as it happens: `stage`, `log`, `status`, `preview`, `problem` and `end` events.

    Starts at the beginning, or after `Last-Event-ID` (or `?after=`), without gap or double, across a restart of the
    service. The stream ends when the session is at rest; a viewer that has seen everything then gets 204.
    Of a session that ended more than `SANDBOX_SESSION_HISTORY_DAYS` ago there is only `end`.
    """
    position = await services.sessions.position(caller, session_id)
    seen = _seq(last_event_id) if last_event_id else after or 0
    if position.is_over_after(seen):
        return Response(status_code=204)
    return event_stream(services.broker.follow(session_id, seen))


def _seq(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidInput(
            "Last-Event-ID is not an id of this stream",
            hint="Send the `id:` of the last event seen.",
            code="event_id_invalid",
        )
    return int(text)


@router.get("/{session_id}/logs", response_class=EventSourceResponse)
async def app_logs(
    session_id: UUID,
    caller: CurrentCaller,
    services: Injected,
    role: Annotated[str | None, Query(max_length=31, description="One role; without it all")] = None,
    follow: Annotated[bool, Query(description="Go on as more is printed")] = False,
    last_event_id: Annotated[str | None, Header(max_length=500)] = None,
) -> Response:
    """What the apps print, as `log` events `{role, stream, line}`; resumed by `Last-Event-ID` at the very byte."""
    lines = await services.sessions.app_lines(caller, session_id, role, follow=follow, resume=last_event_id)
    return event_stream(lines)
