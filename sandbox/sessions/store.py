"""SQL of `sandbox_sessions` and `session_runs`: creating and reading sessions, requesting and claiming work."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.cursors import Cursor, decode_cursor, encode_cursor, invalid_cursor
from sandbox.db.driver import to_db
from sandbox.domain.caller import Caller
from sandbox.domain.events import EventType, NewEvent
from sandbox.domain.session import Session, SessionStatus, Work, may_become
from sandbox.errors import InvalidInput
from sandbox.events import store as events
from sandbox.events.pipeline_log import update_pipeline_log
from sandbox.pool import store as pool
from sandbox.sessions.create_request import NewSession
from sandbox.sessions.rows import SESSION_COLUMNS, to_session

#: NOTIFY channel for sessions that have new work; the payload is the session's id.
CHANNEL = "session_work"
#: Class of the advisory locks (REPLICA_LOCK, replica_no), of which each running replica holds its own.
REPLICA_LOCK = 8741

_INSERT = text(f"""
    INSERT INTO sandbox_sessions (session_id, user_id, project_id, project_digest, runtime_type, sealed, agents,
        requested_plan, run_id, pipeline_run_id, idle_timeout_seconds, max_lifetime_seconds, expires_at,
        idempotency_key, request_digest, work, last_seq, egress, lessons, memory_mb)
    VALUES (:session_id, :user_id, :project_id, :project_digest, :runtime_type, :sealed,
        CAST(:agents AS jsonb), CAST(:requested_plan AS jsonb), :run_id, :pipeline_run_id,
        :idle_timeout_seconds, :max_lifetime_seconds,
        NOW() + make_interval(secs => NULLIF(CAST(:max_lifetime_seconds AS integer), 0)), :idempotency_key,
        :request_digest, 'launch', 1, CAST(:egress AS jsonb), :lessons, :memory_mb)
    ON CONFLICT (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
    RETURNING {SESSION_COLUMNS}
""")
_INSERT_RUN = text("""
    INSERT INTO session_runs (run_id, session_id, pipeline_run_id, request_id, trace_id, parent_span_id, span_id)
    VALUES (:run_id, :session_id, :pipeline_run_id, :request_id, :trace_id, :parent_span_id, :span_id)
""")
_BY_KEY = text(f"""
    SELECT {SESSION_COLUMNS}, request_digest FROM sandbox_sessions WHERE user_id = :user_id AND idempotency_key = :key
""")
_GET = text(f"SELECT {SESSION_COLUMNS} FROM sandbox_sessions WHERE session_id = :session_id")
_LIVING = text(f"""
    SELECT {SESSION_COLUMNS} FROM sandbox_sessions
     WHERE status <> 'terminated' AND user_id = coalesce(:user_id, user_id) ORDER BY created_at
""")
_BY_IDS = text(f"SELECT {SESSION_COLUMNS} FROM sandbox_sessions WHERE session_id = ANY(:ids)")
_LIVE = text("SELECT count(*) FROM sandbox_sessions WHERE user_id = :user_id AND status <> 'terminated'")
_USER_LOCK = text("SELECT pg_advisory_xact_lock(8742, hashtext(:user_id))")
_NOTIFY = text("SELECT pg_notify(:channel, :payload)")
_LIST = """
    SELECT {columns} FROM sandbox_sessions WHERE {conditions} ORDER BY created_at DESC, session_id DESC LIMIT :limit
"""
_REQUEST_TERMINATION = text(f"""
    UPDATE sandbox_sessions SET work = 'terminate'
     WHERE session_id = :session_id AND status <> 'terminated' AND work IS DISTINCT FROM 'terminate'
    RETURNING {SESSION_COLUMNS}
""")
_RELAUNCH = text(f"""
    UPDATE sandbox_sessions
       SET work = 'launch', status = 'creating', run_id = :run_id, pipeline_run_id = :pipeline_run_id, error = NULL,
           waiting = NULL, pipeline_stage = NULL, last_seq = last_seq + 1, last_active = NOW(),
           output_seen = '{{}}', output_seen_at = NULL,
           project_digest = coalesce(:project_digest, project_digest), sealed = coalesce(:sealed, sealed),
           memory_mb = coalesce(CAST(:memory_mb AS integer), memory_mb)
     WHERE session_id = :session_id AND work IS NULL AND status = ANY(:from_statuses)
    RETURNING {SESSION_COLUMNS}, last_seq
""")
_RENEW = text(f"""
    UPDATE sandbox_sessions
       SET last_active = NOW(),
           -- A null is left out by LEAST, so that no maximum means none. What never expires goes on doing so.
           expires_at = CASE WHEN expires_at IS NOT NULL THEN greatest(expires_at, LEAST(
               NOW() + make_interval(secs => :seconds), created_at + make_interval(secs => NULLIF(:most, 0)))) END,
           idle_timeout_seconds = CASE WHEN idle_timeout_seconds > 0 THEN greatest(idle_timeout_seconds, :seconds)
                                       ELSE idle_timeout_seconds END
     WHERE session_id = :session_id AND status <> 'terminated'
    RETURNING {SESSION_COLUMNS}
""")
_TOUCH = text("UPDATE sandbox_sessions SET last_active = NOW() WHERE session_id = ANY(:ids) AND status <> 'terminated'")
#: A launch that waits is left out unless it can go on, or has waited for as long as it may.
_GOES_ON = "(waiting IS NULL OR :with_waiting OR CAST(waiting->>'until' AS TIMESTAMPTZ) < NOW())"
#: How many sessions of the same user come before a session: older ones with such work, and those on which this replica
#: works. Claimed in this order, users take turns, and one with many sessions does not delay another with few.
_TURN = f"""
    (SELECT count(*) FROM sandbox_sessions o
      WHERE o.work = :work AND o.user_id = s.user_id AND o.session_id <> s.session_id
        AND {_GOES_ON}
        AND (o.session_id = ANY(:running) OR (o.created_at, o.session_id) < (s.created_at, s.session_id)))
"""
#: Work that can be claimed: it has no owner, its owner is a replica that died (its lock is free) or hangs (its lease
#: has expired), or its owner is this replica, which lost the connection to the database meanwhile.
#: The subquery is an array, which is evaluated once: with `IN` a plan may evaluate it for every row, and each time it
#: passes over the rows just claimed, so that more than `limit` are claimed.
_CLAIM = text(f"""
    UPDATE sandbox_sessions SET owner = :me, lease_until = NOW() + make_interval(secs => :lease)
     WHERE session_id = ANY (ARRAY(
        SELECT session_id FROM sandbox_sessions s
         WHERE work = :work AND session_id <> ALL(:running)
           AND {_GOES_ON}
           AND (owner IS NULL OR owner = :me OR lease_until < NOW() OR NOT EXISTS (
                SELECT 1 FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = {REPLICA_LOCK}
                   AND l.objid = s.owner::oid AND l.objsubid = 2 AND l.granted
                   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())))
           AND {_TURN} < :per_user
         ORDER BY {_TURN}, created_at LIMIT :limit FOR UPDATE SKIP LOCKED))
    RETURNING {SESSION_COLUMNS}
""")
_RENEW_LEASES = text("""
    UPDATE sandbox_sessions SET lease_until = NOW() + make_interval(secs => :lease)
     WHERE owner = :me AND session_id = ANY(:running)
    RETURNING session_id, work, run_id
""")
_TERMINATED = text("""
    UPDATE sandbox_sessions
       SET status = 'terminated', terminated_at = NOW(), work = NULL, owner = NULL, lease_until = NULL, error = NULL,
           containers = '{}', project_digest = NULL, last_seq = last_seq + 2,
           env = '{}', sealed = NULL, requested_plan = NULL,
           plan = jsonb_set(plan - 'planned', '{roles}', (
               SELECT jsonb_object_agg(key, value - 'env') FROM jsonb_each(plan->'roles')))
     WHERE session_id = :session_id AND owner = :me AND work = 'terminate' AND status = ANY(:from_statuses)
    RETURNING last_seq, run_id
""")
_CANCEL_RUN = text("""
    UPDATE session_runs SET ended_at = NOW(), outcome = 'cancelled' WHERE session_id = :session_id AND ended_at IS NULL
""")
_RESOURCES_GONE = text("""
    UPDATE session_resources SET removed_at = NOW() WHERE session_id = :session_id AND removed_at IS NULL
""")


@dataclass(frozen=True, slots=True)
class RunOrigin:
    """The request that starts a run: its id, and the trace to which the run belongs."""

    request_id: str | None
    trace_id: str
    parent_span_id: str | None
    span_id: str


@dataclass(frozen=True, slots=True)
class Claim:
    """The work and the run in the row of a session that this replica has claimed."""

    work: Work | None
    run_id: UUID


async def insert(conn: AsyncConnection, new: NewSession, origin: RunOrigin) -> Session | None:
    """Insert the session, its first run and its first event; None if the idempotency key was used before."""
    session_id, run_id = new.session_id, uuid4()
    pipeline_run_id = new.pipeline_run_id or str(run_id)
    values = {
        "session_id": session_id,
        "run_id": run_id,
        "user_id": new.user_id,
        "project_id": new.project_id,
        "project_digest": new.project_digest,
        "runtime_type": new.runtime_type,
        "sealed": new.sealed,
        "agents": json.dumps(list(new.agents)),
        "requested_plan": json.dumps(new.requested_plan) if new.requested_plan else None,
        "lessons": new.lessons,
        "memory_mb": new.memory_mb,
        "pipeline_run_id": pipeline_run_id,
        "idle_timeout_seconds": new.idle_timeout_seconds,
        "max_lifetime_seconds": new.max_lifetime_seconds,
        "idempotency_key": new.idempotency_key,
        "request_digest": new.request_digest,
        "egress": json.dumps(new.egress.to_json()),
    }
    row = (await conn.execute(_INSERT, values)).one_or_none()
    if row is None:
        return None
    session = to_session(row)
    await _begin_run(conn, session, origin, previous=None, last_seq=1)
    return session


async def relaunch(
    conn: AsyncConnection,
    session_id: UUID,
    previous: SessionStatus,
    project_digest: str | None,
    pipeline_run_id: str | None,
    origin: RunOrigin,
    *,
    memory_mb: int | None = None,
    sealed: bytes | None = None,
) -> Session | None:
    """Start a new run of the session; None if it has other work, or its status is not `previous` any more.

    `memory_mb`, if given, is the memory of its containers from this run on, and `sealed` replaces the encrypted values
    of its environment.
    """
    run_id = uuid4()
    values = {
        "session_id": session_id,
        "run_id": run_id,
        "pipeline_run_id": pipeline_run_id or str(run_id),
        "project_digest": project_digest,
        "memory_mb": memory_mb,
        "sealed": sealed,
        "from_statuses": [previous.value] if previous.value in may_become(SessionStatus.CREATING) else [],
    }
    row = (await conn.execute(_RELAUNCH, values)).one_or_none()
    if row is None:
        return None
    session = to_session(row)
    await _begin_run(conn, session, origin, previous=previous, last_seq=row.last_seq)
    return session


async def _begin_run(
    conn: AsyncConnection, session: Session, origin: RunOrigin, *, previous: SessionStatus | None, last_seq: int
) -> None:
    await conn.execute(
        _INSERT_RUN,
        {
            "run_id": session.run_id,
            "session_id": session.session_id,
            "pipeline_run_id": session.pipeline_run_id,
            "request_id": origin.request_id,
            "trace_id": origin.trace_id,
            "parent_span_id": origin.parent_span_id,
            "span_id": origin.span_id,
        },
    )
    event = NewEvent(EventType.STATUS, {"status": "creating", "previous": previous.value if previous else None})
    await events.insert(conn, session.session_id, session.run_id, [event], last_seq=last_seq)
    await notify_work(conn, session.session_id)


async def notify_work(conn: AsyncConnection, session_id: UUID) -> None:
    """Notify the reconcilers, when the caller's transaction commits, that the session has work."""
    await conn.execute(_NOTIFY, {"channel": CHANNEL, "payload": str(session_id)})


async def by_idempotency_key(conn: AsyncConnection, user_id: str, key: str) -> tuple[Session, str | None] | None:
    """The session created with this key, and the digest of the request that created it."""
    row = (await conn.execute(_BY_KEY, {"user_id": user_id, "key": key})).one_or_none()
    return (to_session(row), row.request_digest) if row else None


async def count_live(conn: AsyncConnection, user_id: str) -> int:
    """How many sessions of the user are not terminated.

    Holds an advisory lock of the user until the transaction ends, so that two concurrent requests cannot both pass the
    check of the limit.
    """
    await conn.execute(_USER_LOCK, {"user_id": user_id})
    return int((await conn.execute(_LIVE, {"user_id": user_id})).scalar_one())


async def get(conn: AsyncConnection, session_id: UUID) -> Session | None:
    row = (await conn.execute(_GET, {"session_id": session_id})).one_or_none()
    return to_session(row) if row else None


async def living(conn: AsyncConnection, caller: Caller | None) -> list[Session]:
    """The sessions that are not terminated and that the caller may see, oldest first; all of them without a caller."""
    user_id = None if caller is None or caller.is_admin else caller.user_id
    return [to_session(row) for row in (await conn.execute(_LIVING, {"user_id": user_id})).all()]


async def by_ids(conn: AsyncConnection, ids: Sequence[UUID]) -> list[Session]:
    """The sessions with these ids, as far as they exist."""
    return [to_session(row) for row in (await conn.execute(_BY_IDS, {"ids": list(ids)})).all()]


async def list_page(
    conn: AsyncConnection, caller: Caller, filters: dict[str, str | None], limit: int, cursor: str | None
) -> tuple[list[Session], str | None]:
    """A page of the sessions that the caller may see, newest first, and the cursor of the next page or None.

    `filters` are values of the columns status, project_id and user_id. Raises InvalidInput for a malformed cursor.
    """
    conditions = ["TRUE"]
    values: dict[str, Any] = {"limit": limit + 1}
    if not caller.is_admin:
        conditions.append("user_id = :caller")
        values["caller"] = caller.user_id
    for column in ("status", "project_id", "user_id"):
        if filters.get(column) is not None:
            conditions.append(f"{column} = :{column}")
            values[column] = filters[column]
    if cursor is not None:
        conditions.append("(created_at, session_id) < (:cursor_time, :cursor_id)")
        try:
            time, values["cursor_id"] = decode_cursor(cursor, UUID)
            values["cursor_time"] = to_db(time)
        except InvalidInput as error:
            raise invalid_cursor("cursor_invalid") from error
    statement = text(_LIST.format(columns=SESSION_COLUMNS, conditions=" AND ".join(conditions)))
    rows = (await conn.execute(statement, values)).all()
    sessions = [to_session(row) for row in rows[:limit]]
    more = encode_cursor(_cursor(sessions[-1])) if len(rows) > limit else None
    return sessions, more


async def request_termination(conn: AsyncConnection, session_id: UUID) -> Session | None:
    """Record that the session is to be terminated; None if it has ended, or this was requested before."""
    row = (await conn.execute(_REQUEST_TERMINATION, {"session_id": session_id})).one_or_none()
    if row is not None:
        await notify_work(conn, session_id)
    return to_session(row) if row else None


async def renew(conn: AsyncConnection, session_id: UUID, seconds: int, most: int) -> Session | None:
    """Put the session's expiry off to `seconds` from now if that is later, within `most` seconds from its creation
    (0: no such limit); None if it has ended."""
    row = (await conn.execute(_RENEW, {"session_id": session_id, "seconds": seconds, "most": most})).one_or_none()
    return to_session(row) if row else None


async def touch(conn: AsyncConnection, ids: Sequence[UUID]) -> None:
    """Record that these sessions were active now."""
    await conn.execute(_TOUCH, {"ids": list(ids)})


async def claim(
    conn: AsyncConnection,
    me: int,
    work: Work,
    *,
    running: Sequence[UUID],
    limit: int,
    lease: float,
    per_user: int,
    with_waiting: bool = True,
) -> list[Session]:
    """Claim up to `limit` sessions with unowned work of this kind for replica `me`: users take turns, and of each the
    oldest comes first. No user has more than `per_user` at once.

    `running` are sessions on which this replica works already; `lease` is in seconds. Without `with_waiting`, launches
    that wait are left to wait, unless they have waited for as long as they may.
    """
    values = {
        "me": me,
        "work": work.value,
        "running": list(running),
        "limit": limit,
        "lease": lease,
        "per_user": per_user,
        "with_waiting": with_waiting,
    }
    return [to_session(row) for row in (await conn.execute(_CLAIM, values)).all()]


async def renew_leases(conn: AsyncConnection, me: int, running: Sequence[UUID], lease: float) -> dict[UUID, Claim]:
    """Extend the leases of replica `me` on the sessions on which it works; the current claim of each.

    A session that is missing in the answer has another owner now.
    """
    rows = (await conn.execute(_RENEW_LEASES, {"me": me, "running": list(running), "lease": lease})).all()
    return {row.session_id: Claim(Work(row.work) if row.work else None, row.run_id) for row in rows}


async def mark_terminated(conn: AsyncConnection, me: int, session: Session) -> bool:
    """Mark the session terminated in the caller's transaction; False if replica `me` does not own its termination."""
    values = {
        "session_id": session.session_id,
        "me": me,
        "from_statuses": may_become(SessionStatus.TERMINATED),
    }
    row = (await conn.execute(_TERMINATED, values)).one_or_none()
    if row is None:
        return False
    ending = [
        NewEvent(EventType.STATUS, {"status": "terminated", "previous": session.status.value}),
        NewEvent(EventType.END, {"status": "terminated"}),
    ]
    await events.insert(conn, session.session_id, row.run_id, ending, last_seq=row.last_seq)
    await update_pipeline_log(conn, session.session_id)
    await conn.execute(_CANCEL_RUN, {"session_id": session.session_id})
    await conn.execute(_RESOURCES_GONE, {"session_id": session.session_id})
    await pool.forget(conn, session.session_id)
    return True


def _cursor(session: Session) -> Cursor:
    return session.created_at, str(session.session_id)
