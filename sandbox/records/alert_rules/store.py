"""SQL of alert rules and of their measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database
from sandbox.db.tables import Row, Table

RULES = Table(
    "alert_rules",
    (
        "name",
        "description",
        "measure",
        "comparison",
        "threshold",
        "window_seconds",
        "for_seconds",
        "resolve_seconds",
        "severity",
        "is_enabled",
        "created_at",
        "updated_at",
    ),
    time="created_at",
    keys={"name": "text"},
)

#: Most subjects of one rule that get an alert, the worst first: more of them have a common cause.
MAX_SUBJECTS = 50

#: SQL that returns rows of (subject, value); `:window` is the rule's time window.
MEASURES: Final[dict[str, str]] = {
    "agent_in_error": "SELECT name AS subject, 1 AS value FROM agents WHERE status = 'error'",
    "error_logs": """
        SELECT coalesce(service, 'unknown') AS subject, count(*) AS value FROM logs
         WHERE level IN ('ERROR', 'CRITICAL') AND timestamp > NOW() - CAST(:window AS interval)
         GROUP BY 1""",
    # Compared with the hour before. At least five lines are taken as usual, so that few errors are no increase.
    "error_log_ratio": """
        SELECT coalesce(service, 'unknown') AS subject,
               count(*) FILTER (WHERE timestamp > NOW() - CAST(:window AS interval))
               / greatest(5.0, count(*) FILTER (WHERE timestamp <= NOW() - CAST(:window AS interval))
                               * extract(epoch FROM CAST(:window AS interval)) / 3600) AS value
          FROM logs
         WHERE level IN ('ERROR', 'CRITICAL')
           AND timestamp > NOW() - CAST(:window AS interval) - INTERVAL '1 hour'
         GROUP BY 1""",
    # Spans of this service are left out: launches and streams are long by nature.
    "slow_spans": """
        SELECT service_name AS subject, count(*) AS value FROM traces
         WHERE duration_ms > 1000 AND start_time > NOW() - CAST(:window AS interval) AND service_name <> 'sandbox'
         GROUP BY 1""",
    "failed_spans_percent": """
        SELECT service_name AS subject, 100.0 * count(*) FILTER (WHERE status <> 'success') / count(*) AS value
          FROM traces WHERE start_time > NOW() - CAST(:window AS interval)
         GROUP BY 1 HAVING count(*) >= 20""",
    "pass_rate_drop": """
        SELECT test_type AS subject, avg(rate) FILTER (WHERE NOT fresh) - avg(rate) FILTER (WHERE fresh) AS value
          FROM (SELECT test_type, 100.0 * passed / total_tests AS rate,
                       timestamp > NOW() - CAST(:window AS interval) AS fresh
                  FROM test_results
                 WHERE timestamp > NOW() - CAST(:window AS interval) - INTERVAL '7 days'
                   AND status = 'completed' AND total_tests > 0) AS runs
         GROUP BY 1""",
    "coverage_drop": """
        SELECT component AS subject,
               avg(coverage_percent) FILTER (WHERE NOT fresh) - avg(coverage_percent) FILTER (WHERE fresh) AS value
          FROM (SELECT component, coverage_percent, timestamp > NOW() - CAST(:window AS interval) AS fresh
                  FROM coverage
                 WHERE timestamp > NOW() - CAST(:window AS interval) - INTERVAL '7 days') AS measured
         GROUP BY 1""",
    "failed_launch_percent": """
        SELECT 'launches' AS subject, 100.0 * count(*) FILTER (WHERE outcome = 'failed') / count(*) AS value
          FROM session_runs
         WHERE ended_at > NOW() - CAST(:window AS interval) AND outcome IN ('completed', 'failed')
        HAVING count(*) >= 3""",
    "leaked_resources": """
        SELECT resource.kind || 's' AS subject, count(*) AS value
          FROM session_resources AS resource JOIN sandbox_sessions AS session USING (session_id)
         WHERE resource.removed_at IS NULL AND session.status = 'terminated'
           AND session.terminated_at < NOW() - CAST(:window AS interval)
         GROUP BY 1""",
}
#: Measures that are taken in the service, not in the database.
GAUGES: Final = ("disk_used_percent",)

_RULES = text(f"SELECT {', '.join(RULES.columns)} FROM alert_rules WHERE is_enabled ORDER BY name")
_PUT = text(f"""
    INSERT INTO alert_rules
           (name, description, measure, comparison, threshold, window_seconds, for_seconds, resolve_seconds, severity,
            is_enabled)
    VALUES (:name, :description, :measure, :comparison, :threshold, :window_seconds, :for_seconds, :resolve_seconds,
            :severity, :is_enabled)
        ON CONFLICT (name) DO UPDATE
       SET description = excluded.description, measure = excluded.measure, comparison = excluded.comparison,
           threshold = excluded.threshold, window_seconds = excluded.window_seconds,
           for_seconds = excluded.for_seconds, resolve_seconds = excluded.resolve_seconds,
           severity = excluded.severity, is_enabled = excluded.is_enabled
    RETURNING {", ".join(RULES.columns)}
""")
_HOLD = text("""
    INSERT INTO alert_conditions (rule_name, subject)
    SELECT :rule, subject FROM unnest(CAST(:subjects AS text[])) AS subject
        ON CONFLICT (rule_name, subject) DO UPDATE SET gone_since = NULL
""")
#: A condition that ended before it had an alert is removed at once, one with an alert after `resolve_seconds`.
_HOLD_NO_MORE = text("""
    DELETE FROM alert_conditions
     WHERE rule_name = :rule AND subject <> ALL(:subjects)
       AND (coalesce(gone_since, NOW()) - since < make_interval(secs => :for_seconds)
            OR coalesce(gone_since, NOW()) <= NOW() - make_interval(secs => :resolve_seconds))
""")
_GONE = text("""
    UPDATE alert_conditions SET gone_since = NOW()
     WHERE rule_name = :rule AND subject <> ALL(:subjects) AND gone_since IS NULL
""")
_HELD = text("""
    SELECT subject, gone_since IS NULL AND since <= NOW() - make_interval(secs => :for_seconds) AS due,
           extract(epoch FROM NOW() - since) AS seconds
      FROM alert_conditions WHERE rule_name = :rule
""")
_OPEN = text("""
    SELECT alert_id, metadata->>'rule' AS rule, metadata->>'cause' AS cause FROM alerts
     WHERE status IN ('active', 'acknowledged') AND metadata->>'rule' IS NOT NULL
""")


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """An alert that a rule opened and that is not resolved."""

    alert_id: int
    rule: str
    cause: str


async def enabled_rules(db: Database) -> list[Row]:
    """The rules that are evaluated."""
    async with db.read() as connection:
        return [dict(row) for row in (await connection.execute(_RULES)).mappings()]


async def put_rule(db: Database, values: Mapping[str, Any]) -> Row:
    """Create a rule, or replace the one of the same name."""
    async with db.transaction() as connection:
        return dict((await connection.execute(_PUT, dict(values))).mappings().one())


async def remove_rule(db: Database, name: str) -> bool:
    """Remove a rule; False if there was none."""
    async with db.transaction() as connection:
        removed = await connection.execute(text("DELETE FROM alert_rules WHERE name = :name"), {"name": name})
        return removed.rowcount > 0


async def measured(db: Database, measure: str, window: timedelta) -> list[tuple[str, float]]:
    """The current (subject, value) pairs of a measure of `MEASURES`."""
    sql = MEASURES[measure]
    values = {"window": window} if ":window" in sql else {}
    async with db.read() as connection:
        rows = await connection.execute(text(sql), values)
        return [(str(row.subject), float(row.value)) for row in rows if row.value is not None]


@dataclass(frozen=True, slots=True)
class Held:
    """A subject for which a rule's condition holds, or held less than `resolve_seconds` ago."""

    subject: str
    #: The condition holds now and has held for `for_seconds`.
    due: bool
    seconds: float


async def hold(
    connection: AsyncConnection, rule: str, subjects: Sequence[str], for_seconds: int, resolve_seconds: int
) -> list[Held]:
    """Record that a rule's condition holds for these subjects only; all subjects whose alert is to stay open."""
    given = {"rule": rule, "subjects": list(subjects), "for_seconds": for_seconds, "resolve_seconds": resolve_seconds}
    for statement in (_HOLD_NO_MORE, _GONE, _HOLD):
        await connection.execute(statement, given)
    rows = await connection.execute(_HELD, {"rule": rule, "for_seconds": for_seconds})
    return [Held(row.subject, row.due, float(row.seconds)) for row in rows]


async def open_alerts(connection: AsyncConnection) -> list[OpenAlert]:
    """Alerts that rules opened and that are not resolved."""
    return [OpenAlert(row.alert_id, row.rule, row.cause) for row in await connection.execute(_OPEN)]
