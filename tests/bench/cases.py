"""The requests of the benchmark: every saved query, and every list with each of its filters.

The values and words are those that `rows.py` makes common, rare or absent: `payment` and `invoice` are each in many
lines, `976` is in one line of a thousand, `unobtainium` in one of half a million.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sandbox.records.saved_queries import SAVED_QUERIES

#: Callers with role `user`. They own a tenth of all records, a few thousand, ten, and none.
USERS = ("user-0", "user-999", "user-rare", "user-nobody")
#: Windows that are requested besides the documented ones.
_LONGER = {"recent-error-logs": ("24h", "30d"), "slow-traces": ("7d",)}

Params = dict[str, str]


@dataclass(frozen=True, slots=True)
class Case:
    """One request, sent for page after page. `table` is the table that it mostly reads."""

    path: str
    table: str
    params: Params = field(default_factory=dict)
    #: The caller; None is the admin.
    user: str | None = None

    def __str__(self) -> str:
        params = [f"{name}={value}" for name, value in self.params.items()]
        return " ".join([self.path, *params, *([f"(as {self.user})"] if self.user else [])])


def cases() -> list[Case]:
    return [*_saved_queries(), *_lists()]


def _saved_queries() -> Iterator[Case]:
    for name, query in SAVED_QUERIES.items():
        (table,) = re.findall(r"^FROM (\w+)$", query.sql, re.MULTILINE)[:1]
        yield Case(f"analytics/{name}", table)
        for window in _LONGER.get(name, ()):
            yield Case(f"analytics/{name}", table, {"window": window})


def _lists() -> Iterator[Case]:
    for params in [*_LOGS, *_within(_LOGS_WITHIN, days=14)]:
        yield Case("logs", "logs", params)
    for params in [*_SPANS, *_within(_SPANS_WITHIN, days=4)]:
        yield Case("traces", "traces", params)
    for user in USERS:
        for params in _LOGS_OF_USERS:
            yield Case("logs", "logs", params, user)
        for params in _SPANS_OF_USERS:
            yield Case("traces", "traces", params, user)
    yield Case(f"traces/{777:032x}", "traces")
    yield Case("traces/absent", "traces")
    for path, table, filters in _OTHERS:
        for params in [*filters, *_within(({}, filters[-1]), days=14)]:
            yield Case(path, table, params)


def _within(filters: tuple[Params, ...], days: int) -> Iterator[Params]:
    """The filters with time windows: the last hour, one day in the past, since then, until then, before all records."""
    now = datetime.now(UTC).replace(microsecond=0)
    ago = now - timedelta(days=days)
    windows = (
        {"from": now - timedelta(hours=1)},
        {"from": ago, "to": ago + timedelta(days=1)},
        {"from": ago},
        {"to": ago},
        {"to": now - timedelta(days=400)},
    )
    for window in windows:
        moments = {name: moment.isoformat() for name, moment in window.items()}
        for params in filters:
            yield params | moments


_WORDS: tuple[Params, ...] = (
    {"q": "took"},
    {"q": "payment"},
    {"q": "payment invoice"},
    {"q": '"payment order"'},
    {"q": "payment -cart"},
    {"q": "payment or unobtainium"},
    {"q": "976"},
    {"q": "order 1234"},
    {"q": "unobtainium"},
    {"q": "nowhere"},
)
_LOGS: tuple[Params, ...] = (
    {},
    {"limit": "500"},
    *({"level": level} for level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")),
    *({"service": service} for service in ("service-0", "service-7", "service-rare", "service-retired", "nobody")),
    *({"user_id": user} for user in USERS),
    *({"request_id": request} for request in ("request-777", "request-1999000", "request-none")),
    *_WORDS,
    *(
        {"level": level, "service": service}
        for level, service in (
            ("ERROR", "service-0"),
            ("ERROR", "service-7"),
            ("ERROR", "service-12"),
            ("CRITICAL", "service-19"),
            ("DEBUG", "service-rare"),
            ("INFO", "service-7"),
            ("INFO", "service-retired"),
        )
    ),
    *(
        filters | {"q": words}
        for words in ("payment", "976", "unobtainium", "nowhere")
        for filters in (
            {"level": "ERROR"},
            {"level": "CRITICAL"},
            {"service": "service-7"},
            {"service": "service-rare"},
            {"level": "ERROR", "service": "service-7"},
            {"level": "ERROR", "service": "service-12"},
            {"user_id": "user-0"},
        )
    ),
    {"user_id": "user-0", "level": "CRITICAL"},
    {"user_id": "user-999", "service": "service-19"},
    {"request_id": "request-777", "level": "INFO"},
)
_LOGS_WITHIN: tuple[Params, ...] = (
    {},
    {"level": "ERROR"},
    {"level": "ERROR", "service": "service-7"},
    {"service": "service-rare"},
    {"user_id": "user-999"},
    {"q": "payment"},
    {"q": "976"},
    {"q": "nowhere"},
    {"q": "payment", "level": "ERROR"},
)
_LOGS_OF_USERS: tuple[Params, ...] = (
    {},
    {"level": "ERROR"},
    {"service": "service-7"},
    {"level": "ERROR", "service": "service-7"},
    {"q": "payment"},
    {"q": "976"},
    {"q": "nowhere"},
    {"request_id": "request-777"},
)
_SPANS: tuple[Params, ...] = (
    {},
    {"limit": "500"},
    *({"service_name": service} for service in ("service-0", "service-7", "service-rare", "nobody")),
    *({"operation_name": f"GET /{name}"} for name in ("payment", "email", "rare", "none")),
    *({"status": status} for status in ("success", "error", "timeout")),
    *({"trace_id": trace} for trace in (f"{777:032x}", "absent")),
    *(
        {"status": status, "service_name": service}
        for status in ("error", "timeout", "success")
        for service in ("service-0", "service-7", "service-12", "service-rare")
    ),
    {"operation_name": "GET /payment", "status": "timeout"},
    {"operation_name": "GET /email", "service_name": "service-19"},
    {"operation_name": "GET /email", "service_name": "service-19", "status": "error"},
)
_SPANS_WITHIN: tuple[Params, ...] = (
    {},
    {"service_name": "service-7"},
    {"status": "error"},
    {"operation_name": "GET /rare"},
)
_SPANS_OF_USERS: tuple[Params, ...] = (
    {},
    {"status": "error"},
    {"service_name": "service-7"},
    {"operation_name": "GET /cart"},
    {"status": "error", "service_name": "service-7"},
)
_OTHERS: tuple[tuple[str, str, tuple[Params, ...]], ...] = (
    (
        "test-results",
        "test_results",
        (
            {},
            *({"test_type": kind} for kind in ("unit", "load")),
            *({"status": status} for status in ("completed", "failed")),
            {"test_type": "unit", "status": "failed"},
        ),
    ),
    (
        "coverage",
        "coverage",
        (
            {},
            *({"component": component} for component in ("component-7", "none")),
            {"test_type": "unit"},
            {"test_type": "unit", "component": "component-7"},
        ),
    ),
    (
        "alerts",
        "alerts",
        (
            {},
            {"status": "active"},
            {"severity": "critical"},
            {"source": "source-7"},
            {"status": "active", "severity": "critical"},
        ),
    ),
    ("agents", "agents", ({}, {"category": "qa"}, {"status": "error"}, {"category": "qa", "status": "unknown"})),
)
