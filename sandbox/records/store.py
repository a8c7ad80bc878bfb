"""SQL to read logs, traces, test results and coverage, and to insert single rows. Bulk writes: `telemetry/store.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.db.driver import to_db
from sandbox.db.tables import Condition, Row, Table
from sandbox.telemetry.rows import LOG_COLUMNS, SPAN_COLUMNS

LOGS = Table("logs", ("log_id", *LOG_COLUMNS), time="timestamp", keys={"log_id": "bigint"}, by_day=True)
TRACES = Table("traces", SPAN_COLUMNS, time="start_time", keys={"trace_id": "text", "span_id": "text"}, by_day=True)
TEST_RESULTS = Table(
    "test_results",
    (
        "test_id",
        "test_type",
        "status",
        "timestamp",
        "total_tests",
        "passed",
        "failed",
        "skipped",
        "warnings",
        "execution_time",
        "failed_tests",
        "warning_details",
        "test_output",
        "triggered_by",
        "environment",
        "branch_name",
        "commit_hash",
    ),
    time="timestamp",
    keys={"test_id": "bigint"},
    zoned=True,
)
COVERAGE = Table(
    "coverage",
    (
        "coverage_id",
        "timestamp",
        "component",
        "coverage_percent",
        "lines_covered",
        "lines_total",
        "branches_covered",
        "branches_total",
        "test_type",
        "metadata",
    ),
    time="timestamp",
    keys={"coverage_id": "bigint"},
)

_PLAIN = re.compile("-?[A-Za-z0-9]+")

#: Most spans and log lines of one trace that are returned.
MAX_SPANS = 5_000
MAX_TRACE_LOGS = 1_000

_SPANS = text(f"""
    SELECT {", ".join(TRACES.columns)} FROM traces
     WHERE trace_id = :trace_id AND (CAST(:user_id AS text) IS NULL OR tags->>'user_id' = :user_id)
     ORDER BY start_time, span_id LIMIT {MAX_SPANS}
""")

#: The log lines of a request are about as old as its spans; the minute allows for clocks that differ.
_LOGS_OF_REQUESTS = text(f"""
    SELECT {", ".join(LOGS.columns)} FROM logs
     WHERE request_id = ANY(:request_ids)
       AND timestamp BETWEEN CAST(:since AS timestamp) - INTERVAL '1 minute'
                         AND CAST(:until AS timestamp) + INTERVAL '1 minute'
       AND (CAST(:user_id AS text) IS NULL OR user_id = :user_id)
     ORDER BY timestamp, log_id LIMIT {MAX_TRACE_LOGS}
""")

_HORIZON = text("SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)")
_LOGS_AFTER = text(f"""
    SELECT {", ".join(LOGS.columns)}, CAST(CAST(transaction_id AS text) AS bigint) AS transaction_id FROM logs
     WHERE (logs.transaction_id, log_id) > (CAST(CAST(:transaction_id AS text) AS xid8), CAST(:log_id AS bigint))
       AND logs.transaction_id < CAST(CAST(:horizon AS text) AS xid8)
       AND timestamp > CAST(:since AS timestamp)
       AND (CAST(:user_id AS text) IS NULL OR user_id = :user_id)
       AND (CAST(:level AS text) IS NULL OR level = :level)
       AND (CAST(:service AS text) IS NULL OR service = :service)
     ORDER BY logs.transaction_id, log_id LIMIT :limit
""")


def matching(query: str) -> list[Condition]:
    """Conditions for logs whose message has these words; the syntax is `"a phrase"`, `or` and `-without`."""
    conditions: list[Condition] = [
        (
            "to_tsvector('simple', left(message, 4000)) @@ websearch_to_tsquery('simple', :words)",
            {"words": query},
        )
    ]
    # With common words PostgreSQL reads lines by time until the page is full, and most of the work is to split lines
    # into words. The letters of each word are looked for first, which is cheap. Lines beyond ASCII are always split,
    # because lower case is not simple there. `<> 0` makes the planner assume that nearly all rows match.
    for index, word in enumerate(_needed(query)):
        conditions.append(
            (
                f'(strpos(lower(left(message, 4000) COLLATE "C"), :word_{index}) <> 0'
                " OR octet_length(message) <> char_length(message))",
                {f"word_{index}": word},
            )
        )
    return conditions


def _needed(query: str) -> list[str]:
    """Lower-case words that every matching message contains, the longest (and likely rarest) first.

    Empty if the query is not that simple, for example if it has `or`.
    """
    words = query.replace('"', " ").split()
    if '-"' in query or not all(_PLAIN.fullmatch(word) and word.lower() != "or" for word in words):
        return []
    return sorted({word.lower() for word in words if not word.startswith("-")}, key=lambda word: (-len(word), word))


def spans_of(user_id: str) -> Condition:
    """Condition for spans of this user."""
    return "tags->>'user_id' = :owner", {"owner": user_id}


async def spans_of_trace(db: Database, trace_id: str, user_id: str | None) -> list[Row]:
    """A trace's spans by start time; with `user_id` only that user's."""
    async with db.read() as connection:
        rows = await connection.execute(_SPANS, {"trace_id": trace_id, "user_id": user_id})
        return [dict(row) for row in rows.mappings()]


async def logs_of_requests(
    db: Database, request_ids: Sequence[str], since: datetime, until: datetime, user_id: str | None
) -> list[Row]:
    """Log lines of these requests between the two times, oldest first; with `user_id` only that user's."""
    values = {"request_ids": list(request_ids), "since": since, "until": until, "user_id": user_id}
    async with db.read() as connection:
        return [dict(row) for row in (await connection.execute(_LOGS_OF_REQUESTS, values)).mappings()]


async def log_horizon(db: Database) -> int:
    """The id of the oldest transaction that is still running: nothing is committed below it any more."""
    async with db.read() as connection:
        return int((await connection.execute(_HORIZON)).scalar_one())


async def logs_after(
    db: Database, transaction_id: int, log_id: int, horizon: int, limit: int, filters: Mapping[str, str | None]
) -> list[Row]:
    """Log lines of the last day after the position (`transaction_id`, `log_id`), in that order.

    `horizon` is a `log_horizon` from before: of transactions below it all lines are visible. `filters` has a value or
    None for each of user_id, level and service. Rows have `transaction_id` besides the documented columns.
    """
    # A constant, where NOW() is not: the planner leaves out the partitions of earlier days.
    since = to_db(datetime.now(UTC) - timedelta(days=1))
    position = {"transaction_id": transaction_id, "log_id": log_id, "horizon": horizon}
    values = {**position, "since": since, "limit": limit, **filters}
    async with db.read() as connection:
        return [dict(row) for row in (await connection.execute(_LOGS_AFTER, values)).mappings()]


async def insert(db: Database, table: Table, rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Insert rows in one transaction; the rows as stored."""
    async with db.transaction() as connection:
        return [await table.insert(connection, values) for values in rows]
