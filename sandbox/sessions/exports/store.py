"""SQL of collecting: which containers apps may report from, which replicas live, whether a session does."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.sessions.store import REPLICA_LOCK

_NOT_OVER = "status IN ('creating', 'ready', 'running', 'error') AND work IS DISTINCT FROM 'terminate'"
_SOURCES = text(f"""
    SELECT session_id, user_id, run_id, role.key AS role, role.value->>'id' AS container_id
      FROM sandbox_sessions, jsonb_each(containers) AS role
     WHERE {_NOT_OVER} AND role.value->>'status' = 'running'
""")
#: One that hangs still holds its lock, but no longer asks on its connection whether that stands.
_LIVING = text(f"""
    SELECT l.objid::bigint AS number FROM pg_locks l JOIN pg_stat_activity a USING (pid)
     WHERE l.locktype = 'advisory' AND l.classid = {REPLICA_LOCK} AND l.objsubid = 2 AND l.granted
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND coalesce(a.state_change > clock_timestamp() - make_interval(secs => :lease), TRUE)
""")
_IS_OVER = text(f"SELECT NOT ({_NOT_OVER}) FROM sandbox_sessions WHERE session_id = :session_id")


@dataclass(frozen=True, slots=True)
class Source:
    """A container whose apps may report, in one run of its session: after another launch it is another."""

    session_id: UUID
    user_id: str
    run_id: UUID
    role: str
    container_id: str


async def sources(conn: AsyncConnection) -> list[Source]:
    """Every container, as far as is on record, that runs for a session which is not over."""
    return [
        Source(row.session_id, row.user_id, row.run_id, row.role, row.container_id)
        for row in await conn.execute(_SOURCES)
    ]


async def living_replicas(conn: AsyncConnection, lease_seconds: float) -> set[int]:
    """The numbers of the replicas that were heard of within the lease."""
    return set((await conn.execute(_LIVING, {"lease": lease_seconds})).scalars())


async def is_over(conn: AsyncConnection, session_id: UUID) -> bool:
    """Whether the session has ended, or is being ended; one that never was counts as ended."""
    over = (await conn.execute(_IS_OVER, {"session_id": session_id})).scalar_one_or_none()
    return over is None or bool(over)
