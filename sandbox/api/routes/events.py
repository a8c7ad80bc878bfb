"""Server-sent events of a session: its launch, and the output of its apps. Both streams can be resumed."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from pydantic import StringConstraints
from sse_starlette import EventSourceResponse

from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.services import Injected
from sandbox.api.http.streams import event_stream
from sandbox.errors import InvalidInput

router = APIRouter(prefix="/api/v1/sessions", tags=["events"])

RoleName = Annotated[str, StringConstraints(min_length=1, max_length=31)]
#: Roles that a request may name.
MAX_ROLES = 100


@router.get("/{session_id}/events", response_class=EventSourceResponse)
async def session_events(
    session_id: UUID,
    caller: CurrentCaller,
    services: Injected,
    after: Annotated[int | None, Query(ge=0, description="Continue after this seq")] = None,
    last_event_id: Annotated[str | None, Header(max_length=50)] = None,
) -> Response:
    """Follow the launch: `stage`, `log`, `status`, `preview`, `problem` and `end` events.

    Starts at the beginning, or after `Last-Event-ID` (or `?after=`), without gaps or duplicates, also across a restart
    of the service. The stream ends when the session has no work left; a client that has all events then gets 204.
    Only the `end` event is left of a session that ended more than `SANDBOX_SESSION_HISTORY_DAYS` ago.
    """
    position = await services.sessions.position(caller, session_id)
    last_seq = _seq(last_event_id) if last_event_id else after or 0
    if position.is_over_after(last_seq):
        return Response(status_code=204)
    return event_stream(services.broker.follow(session_id, last_seq))


def _seq(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidInput(
            "Last-Event-ID is not an id of this stream",
            hint="Send the `id:` of the last event received.",
            code="event_id_invalid",
        )
    return int(text)


@router.get("/{session_id}/logs", response_class=EventSourceResponse)
async def app_logs(
    session_id: UUID,
    caller: CurrentCaller,
    services: Injected,
    role: Annotated[list[RoleName], Query(default_factory=list, max_length=MAX_ROLES, description="Default all")],
    follow: Annotated[bool, Query(description="Keep the stream open and send new output")] = False,
    last_event_id: Annotated[str | None, Header(max_length=2000)] = None,
) -> Response:
    """The output of the apps as `log` events `{role, stream, line, end, time}`, of some roles or of all.

    `Last-Event-ID` resumes at the exact byte. `end` is the offset after the line in the role's output, which is the
    line's `position` in `…/lines`.
    """
    lines = await services.sessions.app_lines(caller, session_id, role, follow=follow, resume=last_event_id)
    return event_stream(lines)
