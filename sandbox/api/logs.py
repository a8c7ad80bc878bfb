"""`/api/v1/logs`: what services logged, searched, paged and followed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal

import anyio
from fastapi import APIRouter, Query, Response
from pydantic import Field, TypeAdapter
from sse_starlette import EventSourceResponse

from sandbox.api.auth import CurrentCaller
from sandbox.api.events import event_stream
from sandbox.api.pages import Page
from sandbox.api.records import Name, TimedQuery, View, Writable, answer_page
from sandbox.api.services import Injected
from sandbox.db.connection import Database
from sandbox.domain.caller import Caller
from sandbox.telemetry.records import store

router = APIRouter(prefix="/api/v1/logs", tags=["logs"])

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]

#: Writers take ids before they commit: a line is shown once it is this old, when smaller ids are there too.
TAIL_SECONDS = 1.0
TAIL_ROWS = 500


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
    user_id: Name | None = Field(None, description="Whose doing; a user sees its own in any case")
    q: Annotated[str, Writable] | None = Field(
        None, min_length=1, max_length=500, description='Words of the message; `"a phrase"`, `or`, `-without`'
    )


@router.get("")
async def list_logs(caller: CurrentCaller, services: Injected, query: Annotated[LogQuery, Query()]) -> Page[LogView]:
    """Log lines newest first: an admin's all, a user's its own."""
    where = store.matching(query.q) if query.q else []
    return Page.model_validate(
        await answer_page(store.LOGS, services.db, query, where=where, equal=_own(caller, query.user_id))
    )


@router.get("/tail", response_class=EventSourceResponse)
async def tail_logs(
    caller: CurrentCaller,
    services: Injected,
    level: Annotated[Level | None, Query()] = None,
    service: Annotated[Name | None, Query()] = None,
) -> Response:
    """Log lines as they are written, as SSE events `log`; those that are there already are in the list."""
    filters = {"user_id": _own(caller, None).get("user_id"), "level": level, "service": service}
    return event_stream(_follow(services.db, filters))


def _own(caller: Caller, asked: str | None) -> dict[str, Any]:
    """Whose lines: a user that asks for another's asks for what does not exist for it."""
    if caller.is_admin:
        return {}
    return {"user_id": caller.user_id if asked in (None, caller.user_id) else None}


_LINE: TypeAdapter[LogView] = TypeAdapter(LogView)


async def _follow(db: Database, filters: dict[str, str | None]) -> AsyncIterator[bytes]:
    shown = settled = await store.newest_log_id(db)
    while True:
        await anyio.sleep(TAIL_SECONDS)
        newest = await store.newest_log_id(db)
        while shown < settled:
            rows = await store.logs_between(db, shown, settled, TAIL_ROWS, filters)
            for row in rows:
                data = json.dumps(_LINE.dump_python(LogView.model_validate(row), mode="json"), ensure_ascii=False)
                yield f"event: log\ndata: {data}\n\n".encode()
            shown = rows[-1]["log_id"] if len(rows) == TAIL_ROWS else settled
        settled = newest
