"""One trace as a tree: spans beneath the spans that caused them, with what was logged meanwhile."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sandbox.db.connection import Database
from sandbox.db.tables import Row
from sandbox.errors import NotFound
from sandbox.records import store


async def trace_tree(db: Database, trace_id: str, user_id: str | None) -> dict[str, Any]:
    """The trace's spans as a tree (`children`), with `logs` of the requests it is about.

    A span whose parent is not there (not reported, or not the user's) is a root of its own. With `user_id` only what is
    that user's is seen. Raises NotFound.
    """
    spans = await store.spans_of_trace(db, trace_id, user_id)
    if not spans:
        raise NotFound(
            "There is no such trace.", code="trace_not_found", hint="Spans are kept for some days; see /api/v1/traces."
        )
    requests = sorted({request for span in spans if (request := _request_id(span))})
    started = min(span["start_time"] for span in spans)
    ended = max(span["end_time"] or span["start_time"] for span in spans)
    # What came without a request's id is under the trace's.
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
    """Roots with their descendants, each level in order of start.

    Without recursion: depth is whatever was reported. Spans that are each other's parents hang from no root; the first
    of such a circle is made one, so that nothing is left out.
    """
    nodes = {span["span_id"]: {**span, "children": []} for span in spans}
    beneath: dict[str, list[str]] = defaultdict(list)
    roots = []
    for span_id, node in nodes.items():
        parent = node["parent_span_id"]
        if parent in nodes and parent != span_id:
            beneath[parent].append(span_id)
        else:
            roots.append(span_id)
    placed: set[str] = set()
    for span_id in [*roots, *nodes]:
        if span_id in placed:
            continue
        if span_id not in roots:
            roots.append(span_id)
        placed.add(span_id)
        waiting = [span_id]
        while waiting:
            current = waiting.pop()
            for child in beneath[current]:
                if child not in placed:
                    placed.add(child)
                    nodes[current]["children"].append(nodes[child])
                    waiting.append(child)
    return [nodes[span_id] for span_id in roots]
