"""One trace as a tree of spans, with the log lines of its requests."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sandbox.db.connection import Database
from sandbox.db.tables import Row
from sandbox.errors import NotFound
from sandbox.records import store


async def trace_tree(db: Database, trace_id: str, user_id: str | None) -> dict[str, Any]:
    """The trace's spans as a tree (`children`), with the `logs` of its requests.

    A span whose parent is missing (never exported, or another user's) becomes a root. With `user_id` only that user's
    spans and logs are included. Raises NotFound.
    """
    spans = await store.spans_of_trace(db, trace_id, user_id)
    if not spans:
        raise NotFound(
            "There is no such trace.",
            code="trace_not_found",
            hint="Spans are stored for some days: GET /api/v1/traces.",
        )
    requests = sorted({request for span in spans if (request := _request_id(span))})
    started = min(span["start_time"] for span in spans)
    ended = max(span["end_time"] or span["start_time"] for span in spans)
    # Log lines without a request id have the trace id in its place.
    logs = await store.logs_of_requests(db, [*requests, trace_id], started, ended, user_id)
    return {
        "trace_id": trace_id,
        "start_time": started,
        "end_time": ended,
        "duration_ms": round((ended - started).total_seconds() * 1000),
        "span_count": len(spans),
        "truncated": len(spans) == store.MAX_SPANS or len(logs) == store.MAX_TRACE_LOGS,
        "request_ids": requests,
        "spans": _tree(spans),
        "logs": logs,
    }


def _request_id(span: Row) -> str | None:
    tags = span["tags"]
    value = tags.get("request_id") if isinstance(tags, dict) else None
    return value if isinstance(value, str) and value else None


def _tree(spans: list[Row]) -> list[dict[str, Any]]:
    """Root spans with their descendants, each level by start time.

    Not recursive, because clients choose the depth. Spans that are each other's ancestors have no root: the first span
    of such a cycle becomes one, so that no span is left out.
    """
    nodes = {span["span_id"]: {**span, "children": []} for span in spans}
    children: dict[str, list[str]] = defaultdict(list)
    roots = []
    for span_id, node in nodes.items():
        parent = node["parent_span_id"]
        if parent in nodes and parent != span_id:
            children[parent].append(span_id)
        else:
            roots.append(span_id)
    placed: set[str] = set()
    for span_id in [*roots, *nodes]:
        if span_id in placed:
            continue
        if span_id not in roots:
            roots.append(span_id)
        placed.add(span_id)
        stack = [span_id]
        while stack:
            current = stack.pop()
            for child in children[current]:
                if child not in placed:
                    placed.add(child)
                    nodes[current]["children"].append(nodes[child])
                    stack.append(child)
    return [nodes[span_id] for span_id in roots]
