"""The lines of a session's launches and of its apps' output, page by page in both directions, and as a whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.services import Injected
from sandbox.domain.events import Event
from sandbox.domain.levels import Level
from sandbox.domain.processes import ProcessKind, process_name
from sandbox.errors import InvalidInput
from sandbox.events import store as events
from sandbox.sessions.output_pages import OutputQuery, output_lines, page_after, page_before

router = APIRouter(prefix="/api/v1/sessions", tags=["events"])

#: Lines of a download that are sent together.
BATCH_LINES = 500


class LinesQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    source: Literal["launch", "output"] = Field("launch", description="The launches' log, or what the apps print")
    role: str | None = Field(None, max_length=31, description="Of `output` one role; default the first")
    stage: str | None = Field(None, max_length=100, description="Lines of this stage; `launch` only")
    stream: Literal["stdout", "stderr", "system"] | None = None
    level: Level | None = Field(
        None, description="Lines that name this level or a more severe one in their beginning, as `ERROR` or `[warn]`"
    )
    run: UUID | None = Field(None, description="Lines of this run; of `output` the current one by default")
    q: str = Field("", max_length=500, description="Lines with this text, in upper or lower case")
    before: int | None = Field(None, ge=0, description="The last lines before this position; default the last of all")
    after: int | None = Field(None, ge=0, description="The first lines after this position")
    limit: int = Field(500, ge=1, le=2000)


class LineView(BaseModel):
    id: str = Field(description="Names the line within the session, for links")
    position: int = Field(description="For `before` and `after`: the event's seq, or the offset after the line")
    run_id: UUID
    time: datetime | None = Field(description="Null for output of apps, which is stored without times")
    role: str | None
    stage: str | None
    stream: str
    text: str


class LinesPage(BaseModel):
    """Lines, oldest first."""

    items: list[LineView]
    older: bool = Field(description="There may be older lines that match: ask with `before`")
    newer: bool = Field(description="There may be newer lines that match: ask with `after`")
    resume: str | None = Field(
        description="Of `output`: the `Last-Event-ID` with which `…/logs?role=` goes on after this page"
    )


@router.get("/{session_id}/lines")
async def session_lines(
    session_id: UUID, caller: CurrentCaller, services: Injected, query: Annotated[LinesQuery, Query()]
) -> LinesPage:
    """A page of lines: the last ones, those `before` a position, or those `after` it."""
    if query.before is not None and query.after is not None:
        raise InvalidInput("give either `before` or `after`", hint="Two requests read both directions.")
    session = await services.sessions.get(caller, session_id)
    if query.source == "launch":
        wanted = events.LineFilter(query.role, query.stage, query.stream, query.run, query.q, query.level)
        found, more = await events.read_lines(
            services.db, session_id, wanted, before=query.before, after=query.after, limit=query.limit
        )
        is_after = query.after is not None
        items = [_launch_line(event) for event in found]
        older, newer = (query.after or 0) > 0 if is_after else more, more if is_after else query.before is not None
        return LinesPage(items=items, older=older, newer=newer, resume=None)
    guest, role = services.sessions.guest_of(session, query.role)
    run = query.run or session.run_id
    process = process_name(ProcessKind.APP, run)
    match = OutputQuery(services.sessions.redactor(session), query.stream, query.q, query.level)
    if query.after is not None:
        page = await page_after(guest, process, match, after=query.after, limit=query.limit)
    else:
        page = await page_before(guest, process, match, before=query.before, limit=query.limit)
    return LinesPage(
        items=[
            LineView(
                id=f"a-{role}-{line.end}",
                position=line.end,
                run_id=run,
                time=None,
                role=role,
                stage=None,
                stream=line.stream,
                text=line.text,
            )
            for line in page.lines
        ],
        older=page.older,
        newer=page.newer,
        resume=f"run={run.hex[:12]}&{role}={page.end}",
    )


def _launch_line(event: Event) -> LineView:
    data: dict[str, Any] = event.data
    return LineView(
        id=f"l-{event.seq}",
        position=event.seq,
        run_id=event.run_id,
        time=event.time,
        role=data.get("role") or None,
        stage=data.get("stage"),
        stream=data["stream"],
        text=data["line"],
    )


@router.get("/{session_id}/lines/download")
async def download_lines(
    session_id: UUID,
    caller: CurrentCaller,
    services: Injected,
    source: Literal["launch", "output"] = "launch",
    role: Annotated[str | None, Query(max_length=31)] = None,
    run: UUID | None = None,
) -> Response:
    """All stored lines as text: of the launches, or of the output of one role's app (by default the first role's)."""
    if source == "launch":
        text = await services.sessions.pipeline_log(caller, session_id)
        return _attachment(Response(text, media_type="text/plain"), "launch.log")
    session = await services.sessions.get(caller, session_id)
    guest, chosen = services.sessions.guest_of(session, role)
    process, hide = process_name(ProcessKind.APP, run or session.run_id), services.sessions.redactor(session)

    async def chunks() -> AsyncIterator[str]:
        batch = []
        async for line in output_lines(guest, process, hide, 0, None):
            batch.append(f"{line.text}\n")
            if len(batch) == BATCH_LINES:
                yield "".join(batch)
                batch = []
        yield "".join(batch)

    return _attachment(StreamingResponse(chunks(), media_type="text/plain"), f"{chosen}.log")


def _attachment(response: Response, name: str) -> Response:
    """A browser must never show output of a sandbox as a page of this origin."""
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
