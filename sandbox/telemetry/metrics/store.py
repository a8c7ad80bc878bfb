"""SQL for a scrape: the state of the whole deployment, which is the same from every replica."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text

from sandbox.db.connection import Database

_STATE = text("""
    SELECT 'sessions' AS name, status AS label, count(*) AS value FROM sandbox_sessions GROUP BY status
    UNION ALL SELECT 'events', '', coalesce(sum(last_seq), 0) FROM sandbox_sessions
    UNION ALL SELECT 'resources', kind, count(*) FROM session_resources WHERE removed_at IS NULL GROUP BY kind
    UNION ALL SELECT 'leaked', resource.kind, count(*)
      FROM session_resources AS resource JOIN sandbox_sessions AS session USING (session_id)
     WHERE resource.removed_at IS NULL AND session.status = 'terminated'
       AND session.terminated_at < NOW() - INTERVAL '10 minutes'
     GROUP BY resource.kind
    UNION ALL SELECT 'pool', state, count(*) FROM pool_containers WHERE state <> 'claimed' GROUP BY state
    UNION ALL SELECT 'alerts', severity, count(*) FROM alerts
     WHERE status IN ('active', 'acknowledged') GROUP BY severity
    UNION ALL SELECT 'agents', status, count(*) FROM agents GROUP BY status
    UNION ALL SELECT 'replicas', '', count(*) FROM pg_locks
     WHERE locktype = 'advisory' AND classid = 8741 AND granted
    UNION ALL SELECT 'deliveries', '', count(*) FROM alert_deliveries
     WHERE delivered_at IS NULL AND given_up_at IS NULL
    UNION ALL SELECT 'database_bytes', '', pg_database_size(current_database())
""")


@dataclass(frozen=True, slots=True)
class StateValue:
    """One value of the deployment's state, for example the number of sessions with a status."""

    name: str
    label: str
    value: float


async def state(db: Database) -> list[StateValue]:
    """All values, with one query. Raises DatabaseUnavailable."""
    async with db.read() as connection:
        return [StateValue(row.name, row.label, float(row.value)) for row in await connection.execute(_STATE)]
