"""`/api/v1/logs`: search, list and follow log lines."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field
from sse_starlette import EventSourceResponse

from sandbox.api.http.auth import AdminRequired, CurrentCaller
from sandbox.api.http.pages import Page
from sandbox.api.http.record_models import Body, Name, TimedQuery, View, Writable, answer_page
from sandbox.api.http.services import Injected
from sandbox.api.http.streams import event_stream
from sandbox.domain.caller import Caller
from sandbox.records import store
from sandbox.records.log_lines import LogFilter

router = APIRouter(prefix="/api/v1/logs", tags=["logs"])

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class LogView(View):
    log_id: int
    timestamp: datetime
    level: Level
    service: str | None
    message: str
    stack_trace: str | None
    request_id: str | None
    user_id: str | None
    metadata: dict[str, Any] | None


class LogQuery(TimedQuery):
    level: Level | None = None
    service: Name | None = None
    request_id: Name | None = None
    user_id: Name | None = Field(None, description="Lines of this user; only admins see those of others")
    q: Annotated[str, Writable] | None = Field(
        None,
        min_length=1,
        max_length=500,
        description='Full-text query over the message; `"a phrase"`, `or`, `-without`',
    )


class TailQuery(Body):
    level: Level | None = None
    service: Name | None = None
    user_id: Name | None = Field(None, description="Lines of this user (admin); users see only their own")


@router.get("")
async def list_logs(caller: CurrentCaller, services: Injected, query: Annotated[LogQuery, Query()]) -> Page[LogView]:
    """Log lines, newest first. Users see their own, admins all."""
    where = store.matching(query.q) if query.q else []
    return Page.model_validate(
        await answer_page(store.LOGS, services.db, query, where=where, equal=_own(caller, query.user_id))
    )


@router.get("/tail", response_class=EventSourceResponse)
async def tail_logs(
    caller: CurrentCaller,
    services: Injected,
    query: Annotated[TailQuery, Query()],
    last_event_id: Annotated[str | None, Header(max_length=16_000)] = None,
) -> Response:
    """Log lines as they are committed, as SSE events `log` (a line as the list has it); those before are in the list.

    No line is left out and none is sent twice. `Last-Event-ID` resumes where a stream ended, up to a day later; lines
    whose own `timestamp` is older than a day are not sent. Lines come in the order in which the transactions that wrote
    them began, once all earlier transactions have ended. A stream without matching lines has an `id` without an event
    now and then. A user sees its own lines.
    """
    if not caller.is_admin and query.user_id not in (None, caller.user_id):
        raise AdminRequired("Only an admin may follow what others log.", hint="Leave user_id out.")
    position = await services.tail.position(last_event_id)
    wanted = LogFilter(query.user_id if caller.is_admin else caller.user_id, query.level, query.service)
    return event_stream(services.tail.follow(wanted, position))


def _own(caller: Caller, requested: str | None) -> dict[str, Any]:
    """The filter by user: a user that requests the lines of another user gets none."""
    if caller.is_admin:
        return {}
    return {"user_id": caller.user_id if requested in (None, caller.user_id) else None}
