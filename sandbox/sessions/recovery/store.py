"""SQL of watching and recovery. Every change of a session is a compare-and-set against the row as it was read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.domain.events import EventType, NewEvent
from sandbox.domain.session import ContainerInfo, Session, SessionError, SessionStatus, may_become
from sandbox.events import store as events
from sandbox.events.pipeline_log import update_pipeline_log
from sandbox.sessions.store import SESSION_COLUMNS, to_session

_LIVE = text(f"""
    SELECT {SESSION_COLUMNS} FROM sandbox_sessions WHERE status <> 'terminated' ORDER BY created_at, session_id
""")
_AT_REST = text(f"""
    SELECT {SESSION_COLUMNS} FROM sandbox_sessions WHERE work IS NULL AND status IN ('ready', 'running')
""")
_LIVING = text("SELECT session_id FROM sandbox_sessions WHERE session_id = ANY(:ids) AND status <> 'terminated'")
#: A session at rest, as it was when it was read: anything else is somebody else's to change.
_AS_READ = "session_id = :session_id AND work IS NULL AND status = :status AND run_id = :run_id"
_LOST = text(f"""
    UPDATE sandbox_sessions
       SET status = 'error', error = :error, containers = :containers, last_seq = last_seq + :count
     WHERE {_AS_READ} AND status = ANY(:from_statuses)
    RETURNING last_seq
""")
_ADOPT = text(f"""
    UPDATE sandbox_sessions SET containers = :containers, last_seq = last_seq + :count WHERE {_AS_READ}
    RETURNING last_seq
""")
#: Once: of replicas that find the same, one records it and tells of it.
_APP_ENDED = text(f"""
    UPDATE sandbox_sessions
       SET containers = jsonb_set(containers, ARRAY[CAST(:role AS text)],
                                  containers->CAST(:role AS text) || CAST(:ended AS jsonb)),
           last_seq = last_seq + 1
     WHERE {_AS_READ} AND containers->CAST(:role AS text)->>'app' IS DISTINCT FROM 'exited'
    RETURNING last_seq
""")
_SAY = text("""
    UPDATE sandbox_sessions SET last_seq = last_seq + 1 WHERE session_id = :session_id AND status <> 'terminated'
    RETURNING last_seq, run_id
""")


async def live(conn: AsyncConnection) -> list[Session]:
    """Every session that is not terminated, oldest first."""
    return [to_session(row) for row in (await conn.execute(_LIVE)).all()]


async def at_rest(conn: AsyncConnection) -> list[Session]:
    """Every session that should have its containers running, and that nobody is working on."""
    return [to_session(row) for row in (await conn.execute(_AT_REST)).all()]


async def living(conn: AsyncConnection, ids: Collection[UUID]) -> set[UUID]:
    """Which of these sessions exist and are not terminated."""
    return set((await conn.execute(_LIVING, {"ids": list(ids)})).scalars())


async def mark_lost(
    conn: AsyncConnection, session: Session, error: SessionError, containers: Mapping[str, ContainerInfo]
) -> bool:
    """To `error`, with the events that say why; False if the session is not any more as it was read."""
    told = [
        NewEvent(EventType.PROBLEM, error.to_json()),
        NewEvent(EventType.STATUS, {"status": "error", "previous": session.status.value}),
        NewEvent(EventType.END, {"status": "error"}),
    ]
    values = {
        **_as_read(session, containers),
        "error": error.to_json(),
        # One that is in error already, and has now lost more, stays there with the new reason.
        "from_statuses": [*may_become(SessionStatus.ERROR), SessionStatus.ERROR.value],
        "count": len(told),
    }
    return await _tell(conn, session, told, (await conn.execute(_LOST, values)).scalar_one_or_none())


async def adopt(conn: AsyncConnection, session: Session, containers: Mapping[str, ContainerInfo], line: str) -> bool:
    """Record containers as they are found; False if the session is not any more as it was read."""
    told = [recovery_line(line)]
    values = {**_as_read(session, containers), "count": len(told)}
    return await _tell(conn, session, told, (await conn.execute(_ADOPT, values)).scalar_one_or_none())


async def note_app_end(conn: AsyncConnection, session: Session, role: str, exit_code: int | None, line: str) -> bool:
    """Record that a role's app has ended in a session that goes on, and tell of it; False if that is recorded already,
    or the session is not any more as it was read."""
    values = {
        "session_id": session.session_id,
        "status": session.status.value,
        "run_id": session.run_id,
        "role": role,
        "ended": {"app": "exited", "exit_code": exit_code},
    }
    told = NewEvent(EventType.LOG, {"stage": "app", "role": role, "stream": "system", "line": line})
    return await _tell(conn, session, [told], (await conn.execute(_APP_ENDED, values)).scalar_one_or_none())


async def say(conn: AsyncConnection, session_id: UUID, line: NewEvent) -> None:
    """Append one line to a session's events; nothing if it is over."""
    row = (await conn.execute(_SAY, {"session_id": session_id})).one_or_none()
    if row is not None:
        await events.insert(conn, session_id, row.run_id, [line], last_seq=row.last_seq)
        await update_pipeline_log(conn, session_id)


def recovery_line(line: str) -> NewEvent:
    """A line of ours among a session's events."""
    return NewEvent(EventType.LOG, {"stage": "recovery", "role": "", "stream": "system", "line": line})


def _as_read(session: Session, containers: Mapping[str, ContainerInfo]) -> dict[str, Any]:
    return {
        "session_id": session.session_id,
        "status": session.status.value,
        "run_id": session.run_id,
        "containers": {role: info.to_json() for role, info in containers.items()},
    }


async def _tell(conn: AsyncConnection, session: Session, told: Sequence[NewEvent], last_seq: int | None) -> bool:
    if last_seq is None:
        return False
    await events.insert(conn, session.session_id, session.run_id, told, last_seq=last_seq)
    await update_pipeline_log(conn, session.session_id)
    return True
