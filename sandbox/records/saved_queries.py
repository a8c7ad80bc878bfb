"""The documented sample queries, verbatim, except that `:window` replaces their fixed time windows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.errors import InvalidInput, NotFound

MAX_WINDOW = timedelta(days=3650)
_WINDOW = re.compile(r"([1-9][0-9]{0,8})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """A documented query.

    `window` is its documented time window, None if it has none; `admin` marks results that show single users' activity.
    """

    title: str
    sql: str
    window: str | None = None
    admin: bool = False


SAVED_QUERIES: dict[str, SavedQuery] = {
    "agent-status-summary": SavedQuery(
        "Agent status summary",
        """
SELECT
category,
COUNT(*) as total_agents,
SUM(CASE WHEN status = 'healthy' THEN 1 ELSE 0 END) as healthy,
SUM(CASE WHEN status = 'warning' THEN 1 ELSE 0 END) as warning,
SUM(CASE WHEN status = 'error' THEN 1 ELSE 0 END) as error,
ROUND(AVG(success_rate), 2) as avg_success_rate
FROM agents
GROUP BY category
ORDER BY category
""",
    ),
    "test-pass-rate-trend": SavedQuery(
        "Test pass rate trend",
        """
SELECT
DATE(timestamp) as test_date,
test_type,
COUNT(*) as runs,
ROUND(100.0 * SUM(passed) / NULLIF(SUM(total_tests), 0), 2) as pass_rate
FROM test_results
WHERE timestamp > NOW() - CAST(:window AS interval)
AND status = 'completed'
GROUP BY DATE(timestamp), test_type
ORDER BY test_date DESC, test_type
""",
        window="30d",
    ),
    "most-common-test-failures": SavedQuery(
        "Most common test failures",
        """
SELECT
jsonb_array_elements(failed_tests)->>'name' as test_name,
COUNT(*) as failure_count,
jsonb_array_elements(failed_tests)->>'file' as test_file
FROM test_results
WHERE status = 'completed'
AND failed > 0
AND timestamp > NOW() - CAST(:window AS interval)
GROUP BY test_name, test_file
ORDER BY failure_count DESC
LIMIT 10
""",
        window="7d",
    ),
    "recent-error-logs": SavedQuery(
        "Recent error logs with context",
        """
SELECT
timestamp,
service,
message,
request_id,
metadata->>'endpoint' as endpoint,
metadata->>'status_code' as status_code
FROM logs
WHERE level IN ('ERROR', 'CRITICAL')
AND timestamp > NOW() - CAST(:window AS interval)
ORDER BY timestamp DESC
LIMIT 50
""",
        window="1h",
        admin=True,
    ),
    "slow-traces": SavedQuery(
        "Slow traces (> 1 second)",
        """
SELECT
trace_id,
service_name,
operation_name,
duration_ms,
tags->>'http.url' as url,
tags->>'http.method' as method
FROM traces
WHERE duration_ms > 1000
AND start_time > NOW() - CAST(:window AS interval)
ORDER BY duration_ms DESC
LIMIT 20
""",
        window="24h",
        admin=True,
    ),
    "coverage-by-component": SavedQuery(
        "Coverage by component, below 80 %",
        """
SELECT
component,
ROUND(AVG(coverage_percent), 2) as avg_coverage,
MAX(timestamp) as last_measured
FROM coverage
WHERE timestamp > NOW() - CAST(:window AS interval)
GROUP BY component
HAVING AVG(coverage_percent) < 80 -- Components below 80% coverage
ORDER BY avg_coverage ASC
""",
        window="7d",
    ),
    "active-critical-alerts": SavedQuery(
        "Active critical alerts",
        """
SELECT
alert_id,
title,
message,
source,
timestamp,
EXTRACT(EPOCH FROM (NOW() - timestamp))/60 as age_minutes,
metadata->>'affected_services' as affected_services
FROM alerts
WHERE status = 'active'
AND severity = 'critical'
ORDER BY timestamp DESC
""",
    ),
    "test-execution-analytics": SavedQuery(
        "Test execution analytics",
        """
WITH test_stats AS (
SELECT
test_type,
COUNT(*) as total_runs,
ROUND(AVG(execution_time), 2) as avg_duration,
ROUND(100.0 * SUM(passed) / NULLIF(SUM(total_tests), 0), 2) as pass_rate,
SUM(failed) as total_failures
FROM test_results
WHERE timestamp > NOW() - CAST(:window AS interval)
AND status = 'completed'
GROUP BY test_type
)
SELECT * FROM test_stats
ORDER BY pass_rate ASC
""",
        window="30d",
    ),
}


def find(name: str) -> SavedQuery:
    """The saved query of this name. Raises NotFound."""
    query = SAVED_QUERIES.get(name)
    if query is None:
        raise NotFound(
            "There is no saved query of this name.",
            code="question_not_found",
            hint=f"There are {', '.join(SAVED_QUERIES)}.",
        )
    return query


async def run(db: Database, query: SavedQuery, window: str | None = None) -> list[dict[str, Any]]:
    """The rows of a query. `window`, such as `90s`, `30m`, `12h` or `7d`, replaces the documented one.

    Raises InvalidInput for a window that cannot be parsed, or with a query that has none.
    """
    if window is not None and query.window is None:
        raise InvalidInput("window: this query has no time window.", hint="Leave window out.")
    values = {} if query.window is None else {"window": read_window(window or query.window)}
    async with db.read() as connection:
        return [dict(row) for row in (await connection.execute(text(query.sql), values)).mappings()]


def read_window(window: str) -> timedelta:
    """Parse a time window such as `90s`, `30m`, `12h` or `7d`. Raises InvalidInput."""
    match = _WINDOW.fullmatch(window)
    span = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None
    if span is None or span > MAX_WINDOW:
        raise InvalidInput("window: such as 90s, 30m, 12h or 7d; ten years at most.", hint="Send another window.")
    return span
