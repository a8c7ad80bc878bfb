"""SQL of housekeeping: expiry and its warning, deletion of old history and of archives without references."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.driver import to_utc
from sandbox.domain.events import EventType, NewEvent
from sandbox.domain.session import Session
from sandbox.events import store as events
from sandbox.events.pipeline_log import update_pipeline_log
from sandbox.sessions.rows import SESSION_COLUMNS, to_session
from sandbox.sessions.store import notify_work

_DEADLINE = "LEAST(expires_at, last_active + make_interval(secs => NULLIF(idle_timeout_seconds, 0)))"
#: Sessions are warned when a quarter of their time is left, but at least ten seconds and at most five minutes ahead.
_TO_BE_WARNED = f"""
    status <> 'terminated' AND work IS NULL AND warned_for IS DISTINCT FROM {_DEADLINE}
    AND {_DEADLINE} < NOW() + make_interval(secs => LEAST(300, GREATEST(10, coalesce(
            LEAST(NULLIF(idle_timeout_seconds, 0), NULLIF(max_lifetime_seconds, 0)), 1200) / 4.0)))
"""
_IDLE_TOO_LONG = """
    idle_timeout_seconds > 0 AND work IS NULL AND last_active + make_interval(secs => idle_timeout_seconds) < NOW()
"""
_WARN = text(f"""
    UPDATE sandbox_sessions SET warned_for = {_DEADLINE}, last_seq = last_seq + 1 WHERE {_TO_BE_WARNED}
    RETURNING session_id, run_id, last_seq, warned_for
""")
#: The output of apps is checked once after the launch, for comparison; then periodically in the second half of the idle
#: timeout; and always before a session is warned or terminated.
_TO_CHECK = text(f"""
    SELECT {SESSION_COLUMNS}, output_seen FROM sandbox_sessions
     WHERE status = 'running' AND work IS NULL AND idle_timeout_seconds > 0
       AND (output_seen_at IS NULL OR ({_TO_BE_WARNED}) OR ({_IDLE_TOO_LONG})
            OR (last_active + make_interval(secs => idle_timeout_seconds / 2.0) < NOW()
                AND output_seen_at + make_interval(secs => LEAST(60, idle_timeout_seconds / 10.0)) < NOW()))
     ORDER BY last_active + make_interval(secs => idle_timeout_seconds) LIMIT :limit
""")
_RECORD_OUTPUT = text("""
    UPDATE sandbox_sessions
       SET output_seen = output_seen || :printed, output_seen_at = NOW(),
           last_active = CASE WHEN :active THEN GREATEST(last_active, LOCALTIMESTAMP) ELSE last_active END
     WHERE session_id = :session_id AND run_id = :run_id AND status = 'running' AND work IS NULL
""")
_DROP_ARCHIVES = text("""
    DELETE FROM project_archives a WHERE a.created_at < NOW() - INTERVAL '1 hour'
       AND NOT EXISTS (SELECT 1 FROM projects p WHERE p.digest = a.digest)
       AND NOT EXISTS (SELECT 1 FROM sandbox_sessions s WHERE s.project_digest = a.digest)
""")
_EXPIRE = text(f"""
    UPDATE sandbox_sessions SET work = 'terminate'
     WHERE status <> 'terminated' AND work IS DISTINCT FROM 'terminate'
       AND (expires_at < NOW() OR ({_IDLE_TOO_LONG}))
    RETURNING session_id
""")
#: Largest number of sessions, and of their events, that one batch deletes.
_BATCH_SESSIONS = 50
_BATCH_EVENTS = 5_000
_OLD = text("""
    SELECT session_id FROM sandbox_sessions
     WHERE status = 'terminated' AND history_dropped_at IS NULL
       AND terminated_at < NOW() - make_interval(days => :days)
     ORDER BY terminated_at LIMIT :limit
""")
#: All but the last event, `end`: a client that follows such a session must learn that it has ended.
_DROP_EVENTS = text("""
    DELETE FROM session_events e
     USING (SELECT old.session_id, old.seq FROM session_events old JOIN sandbox_sessions s USING (session_id)
             WHERE old.session_id = ANY(:ids) AND old.seq < s.last_seq LIMIT :limit) AS batch
     WHERE e.session_id = batch.session_id AND e.seq = batch.seq
""")
#: A foreign key deletes the stages with their runs.
_DROP_RUNS = text("DELETE FROM session_runs WHERE session_id = ANY(:ids)")
#: Resources that have not been removed from the engine stay recorded.
_DROP_RESOURCES = text("DELETE FROM session_resources WHERE session_id = ANY(:ids) AND removed_at IS NOT NULL")
_HISTORY_DROPPED = text("UPDATE sandbox_sessions SET history_dropped_at = NOW() WHERE session_id = ANY(:ids)")


async def sessions_to_check(conn: AsyncConnection, limit: int) -> list[tuple[Session, dict[str, int]]]:
    """Running sessions whose apps' output is to be checked now, with the output observed before by role; those that
    time out first come first."""
    rows = (await conn.execute(_TO_CHECK, {"limit": limit})).all()
    return [(to_session(row), row.output_seen) for row in rows]


async def record_output(conn: AsyncConnection, session: Session, printed: dict[str, int], *, active: bool) -> bool:
    """Record the bytes that each role has printed, and activity if `active`; False if the session has unfinished work
    or another run."""
    values = {"session_id": session.session_id, "run_id": session.run_id, "printed": printed, "active": active}
    return bool((await conn.execute(_RECORD_OUTPUT, values)).rowcount)


async def warn(conn: AsyncConnection) -> list[UUID]:
    """Append a warning to the events of each session that is about to expire, once per deadline; their ids."""
    rows = (await conn.execute(_WARN)).all()
    for row in rows:
        at = to_utc(row.warned_for)
        line = f"this session ends at {at:%Y-%m-%d %H:%M:%S} UTC unless it is used or renewed before"
        event = NewEvent(EventType.LOG, {"stage": "expiry", "role": "", "stream": "system", "line": line})
        await events.insert(conn, row.session_id, row.run_id, [event], last_seq=row.last_seq)
        await update_pipeline_log(conn, row.session_id)
    return [row.session_id for row in rows]


async def expire(conn: AsyncConnection) -> list[UUID]:
    """Request the termination of every session that has expired; their ids."""
    ids = [row.session_id for row in (await conn.execute(_EXPIRE)).all()]
    for session_id in ids:
        await notify_work(conn, session_id)
    return ids


async def drop_unused_archives(conn: AsyncConnection) -> int:
    """Delete archives older than an hour to which no project and no session refers; how many."""
    return int((await conn.execute(_DROP_ARCHIVES)).rowcount)


async def drop_history(conn: AsyncConnection, days: int) -> int:
    """Delete one batch of the events, runs, stages and resource rows of sessions that ended more than `days` ago.

    A session with more events than one batch needs several calls. Returns the number of sessions whose history is
    completely deleted; their rows stay, with `pipeline_log`.
    """
    ids = list((await conn.execute(_OLD, {"days": days, "limit": _BATCH_SESSIONS})).scalars())
    if not ids:
        return 0
    if (await conn.execute(_DROP_EVENTS, {"ids": ids, "limit": _BATCH_EVENTS})).rowcount == _BATCH_EVENTS:
        return 0
    for statement in (_DROP_RUNS, _DROP_RESOURCES, _HISTORY_DROPPED):
        await conn.execute(statement, {"ids": ids})
    return len(ids)
