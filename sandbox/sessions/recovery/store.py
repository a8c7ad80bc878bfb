"""SQL of the watcher and of recovery. Every change of a session is a compare-and-set against the row that was read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.domain.events import EventType, NewEvent
from sandbox.domain.failures import PASSING_LOSSES
from sandbox.domain.session import ContainerInfo, Session, SessionError, SessionStatus, may_become
from sandbox.events import store as events
from sandbox.events.pipeline_log import update_pipeline_log
from sandbox.sessions.rows import SESSION_COLUMNS, to_session

_LIVE = text(f"""
    SELECT {SESSION_COLUMNS} FROM sandbox_sessions WHERE status <> 'terminated' ORDER BY created_at, session_id
""")
#: A session at rest that should run, or whose error may pass.
_WATCHED = f"""
    work IS NULL AND (status IN ('ready', 'running') OR (status = 'error' AND error->>'stage' IS NULL
                      AND error->>'code' IN ({", ".join(f"'{code}'" for code in sorted(PASSING_LOSSES))})))
"""
_AT_REST = text(f"""
    SELECT {SESSION_COLUMNS} FROM sandbox_sessions WHERE {_WATCHED}
""")
_GUESTS = text(f"""
    SELECT session_id, status, ARRAY(SELECT jsonb_object_keys(containers)) AS roles
      FROM sandbox_sessions WHERE {_WATCHED}
""")
_LIVING = text("SELECT session_id FROM sandbox_sessions WHERE session_id = ANY(:ids) AND status <> 'terminated'")
_FAILED_LAUNCHES = text("""
    SELECT s.session_id FROM sandbox_sessions s JOIN session_runs r USING (run_id)
     WHERE s.status = 'error' AND s.work IS NULL AND s.error->>'stage' IS NOT NULL AND s.error->>'code' = :code
       AND r.ended_at < NOW() - make_interval(secs => :seconds)
""")
_LOST_SESSIONS = text("""
    SELECT session_id, run_id FROM sandbox_sessions
     WHERE status = 'error' AND work IS NULL AND error->>'stage' IS NULL AND error->>'code' = ANY(:codes)
""")
#: A session at rest whose row has not changed since it was read.
_UNCHANGED = "session_id = :session_id AND work IS NULL AND status = :status AND run_id = :run_id"
_LOST = text(f"""
    UPDATE sandbox_sessions
       SET status = 'error', error = :error, containers = :containers, last_seq = last_seq + :count
     WHERE {_UNCHANGED} AND status = ANY(:from_statuses)
    RETURNING last_seq
""")
_BACK = text(f"""
    UPDATE sandbox_sessions
       SET status = :new_status, error = NULL, containers = :containers, last_seq = last_seq + :count
     WHERE {_UNCHANGED} AND status = 'error' AND error = :error
    RETURNING last_seq
""")
_ADOPT = text(f"""
    UPDATE sandbox_sessions SET containers = :containers, last_seq = last_seq + :count WHERE {_UNCHANGED}
    RETURNING last_seq
""")
#: Records the exit once, although several replicas may notice it.
_APP_EXITED = text(f"""
    UPDATE sandbox_sessions
       SET containers = jsonb_set(containers, ARRAY[CAST(:role AS text)],
                                  containers->CAST(:role AS text) || CAST(:ended AS jsonb)),
           last_seq = last_seq + 1
     WHERE {_UNCHANGED} AND containers->CAST(:role AS text)->>'app' IS DISTINCT FROM 'exited'
    RETURNING last_seq
""")
_RAISE_SEQ = text("""
    UPDATE sandbox_sessions SET last_seq = last_seq + :count WHERE session_id = :session_id AND status <> 'terminated'
    RETURNING last_seq, run_id
""")


@dataclass(frozen=True, slots=True)
class WatchedSession:
    """A session whose guest agents are to answer."""

    session_id: UUID
    roles: tuple[str, ...]
    #: Whether it is in an error that may pass.
    in_error: bool


async def live(conn: AsyncConnection) -> list[Session]:
    """Every session that is not terminated, oldest first."""
    return [to_session(row) for row in (await conn.execute(_LIVE)).all()]


async def at_rest(conn: AsyncConnection) -> list[Session]:
    """Every session without unfinished work that should have its containers running, or whose error may pass."""
    return [to_session(row) for row in (await conn.execute(_AT_REST)).all()]


async def guests(conn: AsyncConnection) -> list[WatchedSession]:
    """What the monitor of guest agents needs of the sessions of `at_rest`."""
    rows = (await conn.execute(_GUESTS)).all()
    return [WatchedSession(row.session_id, tuple(row.roles), in_error=row.status == "error") for row in rows]


async def living(conn: AsyncConnection, ids: Collection[UUID]) -> set[UUID]:
    """Which of these sessions exist and are not terminated."""
    return set((await conn.execute(_LIVING, {"ids": list(ids)})).scalars())


async def failed_launches(conn: AsyncConnection, code: str, seconds: float) -> set[UUID]:
    """The sessions whose last launch has failed with this code, at least so many seconds ago."""
    return set((await conn.execute(_FAILED_LAUNCHES, {"code": code, "seconds": seconds})).scalars())


async def lost(conn: AsyncConnection, codes: Collection[str]) -> set[tuple[UUID, UUID]]:
    """The sessions, each with its run, that were lost at rest with one of these codes."""
    rows = (await conn.execute(_LOST_SESSIONS, {"codes": list(codes)})).all()
    return {(row.session_id, row.run_id) for row in rows}


async def mark_lost(
    conn: AsyncConnection, session: Session, error: SessionError, containers: Mapping[str, ContainerInfo]
) -> bool:
    """Set the status to `error` and append the events; False if the session's row has changed since it was read."""
    new_events = [
        NewEvent(EventType.PROBLEM, error.to_json()),
        NewEvent(EventType.STATUS, {"status": "error", "previous": session.status.value}),
        NewEvent(EventType.END, {"status": "error"}),
    ]
    values = {
        **_values(session, containers),
        "error": error.to_row(),
        # A session in error that has now lost more gets the new error.
        "from_statuses": [*may_become(SessionStatus.ERROR), SessionStatus.ERROR.value],
        "count": len(new_events),
    }
    return await _append_events(conn, session, new_events, (await conn.execute(_LOST, values)).scalar_one_or_none())


async def mark_back(conn: AsyncConnection, session: Session, containers: Mapping[str, ContainerInfo]) -> bool:
    """Set the status of a session whose error has passed to what it was before, and append the events.

    False if the session's row has changed since it was read.
    """
    if session.error is None:
        return False
    status = session.healthy_status.value
    line = f"{session.error.code} has passed: everything answers again, and the session goes on"
    new_events = [
        recovery_line(line),
        NewEvent(EventType.STATUS, {"status": status, "previous": session.status.value}),
        NewEvent(EventType.END, {"status": status}),
    ]
    values = {
        **_values(session, containers),
        "new_status": status,
        "error": session.error.to_row(),
        "count": len(new_events),
    }
    return await _append_events(conn, session, new_events, (await conn.execute(_BACK, values)).scalar_one_or_none())


async def adopt(conn: AsyncConnection, session: Session, containers: Mapping[str, ContainerInfo], line: str) -> bool:
    """Record these containers as the session's; False if the session's row has changed since it was read."""
    new_events = [recovery_line(line)]
    values = {**_values(session, containers), "count": len(new_events)}
    return await _append_events(conn, session, new_events, (await conn.execute(_ADOPT, values)).scalar_one_or_none())


async def record_app_exit(conn: AsyncConnection, session: Session, role: str, exit_code: int | None, line: str) -> bool:
    """Record that a role's app has exited in a session that goes on, and append `line` to its events.

    False if the exit is recorded already, or the session's row has changed since it was read.
    """
    values = {
        "session_id": session.session_id,
        "status": session.status.value,
        "run_id": session.run_id,
        "role": role,
        "ended": {"app": "exited", "exit_code": exit_code},
    }
    event = NewEvent(EventType.LOG, {"stage": "app", "role": role, "stream": "system", "line": line})
    return await _append_events(conn, session, [event], (await conn.execute(_APP_EXITED, values)).scalar_one_or_none())


async def append_events(conn: AsyncConnection, session_id: UUID, new_events: Sequence[NewEvent]) -> None:
    """Append events to a session's log, unless the session has ended."""
    row = (await conn.execute(_RAISE_SEQ, {"session_id": session_id, "count": len(new_events)})).one_or_none()
    if row is not None:
        await events.insert(conn, session_id, row.run_id, new_events, last_seq=row.last_seq)
        await update_pipeline_log(conn, session_id)


def recovery_line(line: str) -> NewEvent:
    """A log event of the service about the recovery of a session."""
    return NewEvent(EventType.LOG, {"stage": "recovery", "role": "", "stream": "system", "line": line})


def _values(session: Session, containers: Mapping[str, ContainerInfo]) -> dict[str, Any]:
    return {
        "session_id": session.session_id,
        "status": session.status.value,
        "run_id": session.run_id,
        "containers": {role: info.to_json() for role, info in containers.items()},
    }


async def _append_events(
    conn: AsyncConnection, session: Session, new_events: Sequence[NewEvent], last_seq: int | None
) -> bool:
    """Append events if the update before it has found its row (`last_seq` is not None); whether it has."""
    if last_seq is None:
        return False
    await events.insert(conn, session.session_id, session.run_id, new_events, last_seq=last_seq)
    await update_pipeline_log(conn, session.session_id)
    return True
