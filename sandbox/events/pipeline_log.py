"""`sandbox_sessions.pipeline_log`: a session's events as text. It is still there after the events have been deleted."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

#: Appends the events after `logged_seq`, so an event can be neither missed nor appended twice. At most 4 MiB are
#: stored; the oldest text is dropped first.
_UPDATE = text("""
    UPDATE sandbox_sessions s
       SET pipeline_log = right(s.pipeline_log || coalesce(
               (SELECT string_agg(event_log_line(e.type, e.time, e.data), '' ORDER BY e.seq) FROM session_events e
                 WHERE e.session_id = s.session_id AND e.seq > s.logged_seq), ''), 4194304),
           logged_seq = s.last_seq
     WHERE session_id = :session_id
""")
_READ = text("SELECT pipeline_log FROM sandbox_sessions WHERE session_id = :session_id")


async def update_pipeline_log(conn: AsyncConnection, session_id: UUID) -> None:
    """Append the events that are not in the log yet, in the caller's transaction."""
    await conn.execute(_UPDATE, {"session_id": session_id})


async def read_pipeline_log(conn: AsyncConnection, session_id: UUID) -> str:
    """The log of a session that exists."""
    return str((await conn.execute(_READ, {"session_id": session_id})).scalar_one())
