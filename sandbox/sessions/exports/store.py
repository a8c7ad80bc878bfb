"""SQL of the collector: containers to fetch exports from, replicas that are alive, sessions that have ended."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.sessions.store import REPLICA_LOCK

_NOT_ENDED = "status IN ('creating', 'ready', 'running', 'error') AND work IS DISTINCT FROM 'terminate'"
_SOURCES = text(f"""
    SELECT session_id, user_id, run_id, role.key AS role, role.value->>'id' AS container_id
      FROM sandbox_sessions, jsonb_each(containers) AS role
     WHERE {_NOT_ENDED} AND role.value->>'status' = 'running'
""")
#: A replica that hangs still holds its lock, but has stopped the periodic query on that connection.
_LIVE_REPLICAS = text(f"""
    SELECT l.objid::bigint AS number FROM pg_locks l JOIN pg_stat_activity a USING (pid)
     WHERE l.locktype = 'advisory' AND l.classid = {REPLICA_LOCK} AND l.objsubid = 2 AND l.granted
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND coalesce(a.state_change > clock_timestamp() - make_interval(secs => :lease), TRUE)
""")
_SEALED = text("SELECT sealed FROM sandbox_sessions WHERE session_id = :session_id")
_HAS_ENDED = text(f"SELECT NOT ({_NOT_ENDED}) FROM sandbox_sessions WHERE session_id = :session_id")


@dataclass(frozen=True, slots=True)
class Source:
    """A container from which exports are fetched, in one run of its session. A relaunch makes it another source."""

    session_id: UUID
    user_id: str
    run_id: UUID
    role: str
    container_id: str


async def sources(conn: AsyncConnection) -> list[Source]:
    """Every container recorded as running, of the sessions that have not ended."""
    return [
        Source(row.session_id, row.user_id, row.run_id, row.role, row.container_id)
        for row in await conn.execute(_SOURCES)
    ]


async def live_replicas(conn: AsyncConnection, lease_seconds: float) -> set[int]:
    """The numbers of the replicas that have shown activity within the lease."""
    return set((await conn.execute(_LIVE_REPLICAS, {"lease": lease_seconds})).scalars())


async def sealed(conn: AsyncConnection, session_id: UUID) -> bytes | None:
    """The encrypted values of the session's environment."""
    found = (await conn.execute(_SEALED, {"session_id": session_id})).scalar_one_or_none()
    return bytes(found) if found is not None else None


async def has_ended(conn: AsyncConnection, session_id: UUID) -> bool:
    """Whether the session has ended or is being terminated. A session that does not exist counts as ended."""
    ended = (await conn.execute(_HAS_ENDED, {"session_id": session_id})).scalar_one_or_none()
    return ended is None or bool(ended)
