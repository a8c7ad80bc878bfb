"""The lines of a session's launches and of its apps' output, page by page in both directions, and as a whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.services import Injected, Services
from sandbox.api.routes.events import MAX_ROLES, RoleName
from sandbox.domain.events import Event
from sandbox.domain.levels import Level
from sandbox.domain.processes import ProcessKind, process_name
from sandbox.domain.session import Session
from sandbox.errors import InvalidInput
from sandbox.events import store as events
from sandbox.sessions.output_pages import OutputQuery
from sandbox.sessions.role_output import (
    RoleLine,
    all_lines,
    decode_boundary,
    encode_boundary,
    roles_after,
    roles_before,
)

router = APIRouter(prefix="/api/v1/sessions", tags=["events"])

#: Lines of a download that are sent together.
BATCH_LINES = 500
#: Names the one log of a session's launches in a boundary, as a role names its output.
LAUNCH = "seq"

Place = Annotated[str, StringConstraints(max_length=2000, pattern=r"^(\d{1,15}|[^=&]+=\d{1,15}(&[^=&]+=\d{1,15})*)$")]


class LinesQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    source: Literal["launch", "output"] = Field("launch", description="The launches' log, or what the apps print")
    role: list[RoleName] = Field(
        default_factory=list,
        max_length=MAX_ROLES,
        description="Lines of these roles, ordered by time; default all of `launch`, of `output` the first role",
    )
    stage: str | None = Field(None, max_length=100, description="Lines of this stage; `launch` only")
    stream: Literal["stdout", "stderr", "system"] | None = None
    level: Level | None = Field(
        None, description="Lines that name this level or a more severe one in their beginning, as `ERROR` or `[warn]`"
    )
    run: UUID | None = Field(None, description="Lines of this run; of `output` the current one by default")
    q: str = Field("", max_length=500, description="Lines with this text, in upper or lower case")
    before: Place | None = Field(
        None,
        description="The last lines before this: `start` of a page, or a line's `position`; default the last of all",
    )
    after: Place | None = Field(None, description="The first lines after this: `end` of a page, or a line's `position`")
    limit: int = Field(500, ge=1, le=2000)


class LineView(BaseModel):
    id: str = Field(description="Names the line within the session, for links")
    position: int = Field(description="The event's seq, or the offset after the line in the role's output")
    run_id: UUID
    time: datetime | None = Field(description="Null for output of a container that an earlier release started")
    role: str | None
    stage: str | None
    stream: str
    text: str


class LinesPage(BaseModel):
    """Lines, oldest first."""

    items: list[LineView]
    older: bool = Field(description="There may be older lines that match: ask with `before`")
    newer: bool = Field(description="There may be newer lines that match: ask with `after`")
    start: str = Field(description="The place before the first line: `before` of the next older page")
    end: str = Field(description="The place after the last line: `after` of the next newer page")
    resume: str | None = Field(
        description="Of `output`: the `Last-Event-ID` with which `…/logs?role=` goes on after this page"
    )


@router.get("/{session_id}/lines")
async def session_lines(
    session_id: UUID, caller: CurrentCaller, services: Injected, query: Annotated[LinesQuery, Query()]
) -> LinesPage:
    """A page of lines: the last ones, those `before` a place in the log, or those `after` it."""
    if query.before is not None and query.after is not None:
        raise InvalidInput("give either `before` or `after`", hint="Two requests read both directions.")
    session = await services.sessions.get(caller, session_id)
    if query.source == "launch":
        return await _launch_lines(services, session_id, query)
    return await _output_lines(services, session, query)


async def _launch_lines(services: Services, session_id: UUID, query: LinesQuery) -> LinesPage:
    wanted = events.LineFilter(query.role or None, query.stage, query.stream, query.run, query.q, query.level)
    before = _boundary(query.before, LAUNCH, is_before=True)
    after = _boundary(query.after, LAUNCH, is_before=False)
    found, more = await events.read_lines(
        services.db,
        session_id,
        wanted,
        before=None if before is None else before.get(LAUNCH, 0) + 1,
        after=None if after is None else after.get(LAUNCH, 0),
        limit=query.limit,
    )
    given = before or after or {LAUNCH: 0}
    return LinesPage(
        items=[_launch_line(event) for event in found],
        older=more if after is None else after.get(LAUNCH, 0) > 0,
        newer=before is not None if after is None else more,
        start=encode_boundary({LAUNCH: found[0].seq - 1} if found else given),
        end=encode_boundary({LAUNCH: found[-1].seq} if found else given),
        resume=None,
    )


async def _output_lines(services: Services, session: Session, query: LinesQuery) -> LinesPage:
    guests = services.sessions.guests_of(session, query.role)
    run = query.run or session.run_id
    process = process_name(ProcessKind.APP, run)
    match = OutputQuery(services.sessions.redactor(session), query.stream, query.q, query.level)
    first = next(iter(guests))
    after = _boundary(query.after, first, is_before=False)
    if after is not None:
        page = await roles_after(guests, process, match, boundary=after, limit=query.limit)
    else:
        before = _boundary(query.before, first, is_before=True)
        page = await roles_before(guests, process, match, boundary=before, limit=query.limit)
    return LinesPage(
        items=[_output_line(run, row) for row in page.lines],
        older=page.older,
        newer=page.newer,
        start=encode_boundary(page.start),
        end=encode_boundary(page.end),
        resume=f"run={run.hex[:12]}&{encode_boundary(page.end)}",
    )


def _boundary(place: str | None, only: str, *, is_before: bool) -> dict[str, int] | None:
    """The boundary that a request names: one that a page gave, or before or after the line at a position of the log
    or role `only`."""
    if place is None:
        return None
    if not place.isdecimal():
        return decode_boundary(place)
    return {only: max(0, int(place) - 1) if is_before else int(place)}


def _output_line(run: UUID, row: RoleLine) -> LineView:
    line = row.line
    return LineView(
        id=f"a-{row.role}-{line.end}",
        position=line.end,
        run_id=run,
        time=None if line.time is None else datetime.fromtimestamp(line.time, UTC),
        role=row.role,
        stage=None,
        stream=line.stream,
        text=line.text,
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
    role: Annotated[list[RoleName], Query(default_factory=list, max_length=MAX_ROLES)],
    source: Literal["launch", "output"] = "launch",
    run: UUID | None = None,
) -> Response:
    """All stored lines as text: of the launches, or of the output of one role's app (by default the first role's). Of
    several roles they are ordered by time, and each begins with its time and role."""
    if source == "launch":
        text = await services.sessions.pipeline_log(caller, session_id)
        return _attachment(Response(text, media_type="text/plain"), "launch.log")
    session = await services.sessions.get(caller, session_id)
    guests = services.sessions.guests_of(session, role)
    process, hide = process_name(ProcessKind.APP, run or session.run_id), services.sessions.redactor(session)

    async def chunks() -> AsyncIterator[str]:
        batch = []
        async for row in all_lines(guests, process, hide):
            batch.append(_as_text(row, has_origin=len(guests) > 1))
            if len(batch) == BATCH_LINES:
                yield "".join(batch)
                batch = []
        yield "".join(batch)

    return _attachment(StreamingResponse(chunks(), media_type="text/plain"), f"{'-'.join(guests)}.log")


def _as_text(row: RoleLine, *, has_origin: bool) -> str:
    if not has_origin:
        return f"{row.line.text}\n"
    time = "" if row.line.time is None else f"{datetime.fromtimestamp(row.line.time, UTC):%Y-%m-%dT%H:%M:%S.%fZ} "
    return f"{time}{row.role}: {row.line.text}\n"


def _attachment(response: Response, name: str) -> Response:
    """A browser must never show output of a sandbox as a page of this origin."""
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
