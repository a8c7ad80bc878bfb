"""`/api/v1/traces`: spans, and a trace as a tree of spans."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.pages import Page
from sandbox.api.http.record_models import Name, TimedQuery, View, Writable, answer_page
from sandbox.api.http.services import Injected
from sandbox.api.routes.logs import LogView
from sandbox.records import store
from sandbox.records.trace_tree import trace_tree

router = APIRouter(prefix="/api/v1/traces", tags=["traces"])


class SpanView(View):
    trace_id: str
    span_id: str
    parent_span_id: str | None
    operation_name: str
    service_name: str
    start_time: datetime
    end_time: datetime | None
    duration_ms: int | None
    status: Literal["success", "error", "timeout"] | None
    tags: dict[str, Any] | None
    logs: list[Any] | None


class SpanNode(SpanView):
    children: list[dict[str, Any]] = Field(description="Child spans, each with its own `children`")


class TraceView(View):
    trace_id: str
    start_time: datetime
    end_time: datetime
    duration_ms: int
    span_count: int
    truncated: bool = Field(description="The trace has more spans or log lines than this response")
    request_ids: list[str]
    spans: list[SpanNode] = Field(description="Root spans: those whose parent is not in this response")
    logs: list[LogView] = Field(description="Log lines of the trace's requests, oldest first")


class SpanQuery(TimedQuery):
    trace_id: Name | None = None
    service_name: Name | None = None
    operation_name: Annotated[str, Writable] | None = Field(None, min_length=1, max_length=200)
    status: Literal["success", "error", "timeout"] | None = None
    user_id: Name | None = Field(
        None, description="Spans of this user (tag `user_id`); only admins see those of others"
    )


@router.get("")
async def list_spans(caller: CurrentCaller, services: Injected, query: Annotated[SpanQuery, Query()]) -> Page[SpanView]:
    """Spans, newest first. Users see their own (tag `user_id`), admins all."""
    own = None if caller.is_admin else caller.user_id
    if own is not None and query.user_id not in (None, own):
        return Page(items=[])
    user = own or query.user_id
    where = [store.spans_of(user)] if user else []
    return Page.model_validate(await answer_page(store.TRACES, services.db, query, where=where, besides={"user_id"}))


@router.get("/{trace_id}")
async def get_trace(
    trace_id: Annotated[Name, Path(min_length=1, max_length=100)], caller: CurrentCaller, services: Injected
) -> TraceView:
    """One trace as a tree of spans, with the log lines of its requests."""
    tree = await trace_tree(services.db, trace_id, None if caller.is_admin else caller.user_id)
    return TraceView.model_validate(tree)
