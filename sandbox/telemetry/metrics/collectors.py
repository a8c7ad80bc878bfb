"""Metrics of this process, in the Prometheus client library and named by its conventions.

There is one registry per process, because Prometheus scrapes processes: rates of the deployment are sums over replicas.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from sqlalchemy import event
from sqlalchemy.engine import Connection

from sandbox.db.connection import Database

# The start time of the process is a metric already; `_created` series would repeat it.
disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SLOW = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)

LAUNCHES: Final = Histogram(
    "sandbox_launch_duration_seconds",
    "Launches by how they ended.",
    ["status"],
    buckets=_SLOW,
    registry=REGISTRY,
)
STAGES: Final = Histogram(
    "sandbox_stage_duration_seconds",
    "Stages of launches.",
    ["stage", "status"],
    buckets=_SLOW,
    registry=REGISTRY,
)
FAILURES: Final = Counter(
    "sandbox_launch_failures", "Launches that failed, by failure code.", ["code"], registry=REGISTRY
)
REQUESTS: Final = Histogram(
    "sandbox_http_request_duration_seconds",
    "HTTP requests and WebSockets by route; streams count from open to close.",
    ["route", "status"],
    buckets=_FAST,
    registry=REGISTRY,
)
DATABASE: Final = Histogram(
    "sandbox_database_query_duration_seconds",
    "Statements, from sending to the answer.",
    buckets=_FAST,
    registry=REGISTRY,
)
DATABASE_ERRORS: Final = Counter(
    "sandbox_database_errors", "Statements that PostgreSQL refused or did not answer.", registry=REGISTRY
)
ENGINE: Final = Histogram(
    "sandbox_engine_call_duration_seconds",
    "Calls of the container engine.",
    ["status"],
    buckets=_FAST,
    registry=REGISTRY,
)
INTAKE: Final = Counter(
    "sandbox_intake_records",
    "Records received by OTLP, by kind and outcome.",
    ["kind", "outcome"],
    registry=REGISTRY,
)
SESSION_EXPORTS: Final = Counter(
    "sandbox_session_exports",
    "Export requests that apps in sessions sent, by kind and by the HTTP status of the answer.",
    ["kind", "status"],
    registry=REGISTRY,
)
PREVIEWS: Final = Counter(
    "sandbox_preview_requests",
    "Requests of previews that apps answered, by session and HTTP status; of the sessions used last.",
    ["session", "code"],
    registry=REGISTRY,
)
COLLECTED: Final = Gauge(
    "sandbox_collected_containers",
    "Containers whose apps' exports this replica fetches.",
    registry=REGISTRY,
)
PUSHED_BACK: Final = Counter(
    "sandbox_intake_pushed_back_requests",
    "Export requests that were answered 429 or 503: their senders try again.",
    ["kind"],
    registry=REGISTRY,
)
STRAYS: Final = Gauge(
    "sandbox_stray_resources",
    "Resources on the engine that belong to no living session, as this replica's last sweep found them.",
    ["kind"],
    registry=REGISTRY,
)
STRAYS_REMOVED: Final = Counter(
    "sandbox_stray_resources_removed",
    "Stray resources that were removed, by the sweep or by an admin's recovery.",
    ["kind"],
    registry=REGISTRY,
)

POOL_HITS: Final = Counter(
    "sandbox_pool_hits", "Containers that launches got from the pool.", ["runtime"], registry=REGISTRY
)
POOL_MISSES: Final = Counter(
    "sandbox_pool_misses",
    "Containers that launches had to make, and why: empty, egress (the network is restricted), off (there is no pool).",
    ["runtime", "reason"],
    registry=REGISTRY,
)

#: Sessions that have series of their own; those that were not used for the longest lose theirs.
PREVIEW_SESSIONS: Final = 500
_preview_codes: Final = OrderedDict[str, set[str]]()
#: Key of a statement's start time in the connection's `info`.
_BEGAN: Final = "sandbox_statement_began"


def observe_span(name: str, seconds: float, status: str, attributes: Mapping[str, Any]) -> None:
    """Count a finished span, if it is of a launch or of one of its stages."""
    if name == "launch":
        LAUNCHES.labels(status).observe(seconds)
        code = attributes.get("error.code")
        if code:
            FAILURES.labels(str(code)).inc()
    elif name.startswith("launch."):
        STAGES.labels(name.removeprefix("launch."), status).observe(seconds)


def observe_claim(runtime: str, missed: str | None) -> None:
    """Count a container that a launch needed; `missed` is why it did not come from the pool."""
    if missed is None:
        POOL_HITS.labels(runtime).inc()
    else:
        POOL_MISSES.labels(runtime, missed).inc()


def observe_request(method: str, route: str | None, status: str, seconds: float) -> None:
    """Count a finished request; `route` is the path template of the route that answered it."""
    # Requests without a route share one series, because clients could invent any number of paths.
    REQUESTS.labels(f"{method} {route}" if route else "none", status).observe(seconds)


def observe_previews(counts: Mapping[tuple[str, str], int]) -> None:
    """Count requests of previews by session and status."""
    for (session, code), count in counts.items():
        PREVIEWS.labels(session, code).inc(count)
        _preview_codes.setdefault(session, set()).add(code)
        _preview_codes.move_to_end(session)
    while len(_preview_codes) > PREVIEW_SESSIONS:
        session, codes = _preview_codes.popitem(last=False)
        for code in codes:
            PREVIEWS.remove(session, code)


@contextmanager
def engine_call() -> Iterator[None]:
    """Time the block as a call of the container engine."""
    began, status = time.perf_counter(), "error"
    try:
        yield
        status = "success"
    finally:
        ENGINE.labels(status).observe(time.perf_counter() - began)


def watch(db: Database) -> None:
    """Time all statements of this connection pool from now on."""
    engine = db.engine.sync_engine

    @event.listens_for(engine, "before_cursor_execute")
    def _before(connection: Connection, *_: object) -> None:
        connection.info[_BEGAN] = time.perf_counter()

    @event.listens_for(engine, "after_cursor_execute")
    def _after(connection: Connection, *_: object) -> None:
        began = connection.info.pop(_BEGAN, None)
        if began is not None:
            DATABASE.observe(time.perf_counter() - began)

    @event.listens_for(engine, "handle_error")
    def _error(_context: object) -> None:
        DATABASE_ERRORS.inc()
