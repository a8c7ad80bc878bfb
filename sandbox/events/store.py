"""The event log in PostgreSQL: appended in batches while the session's row is locked, read by seq."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database
from sandbox.db.driver import to_utc
from sandbox.domain.events import Event, EventType, NewEvent
from sandbox.domain.levels import ANY_WORD, COLOURS, LOOKED_AT, Level, words_from
from sandbox.domain.session import Work

#: NOTIFY channel for new events. The payload is the id of the session.
CHANNEL = "session_events"

#: `base` is the seq before the first of the events.
_INSERT = text("""
    INSERT INTO session_events (session_id, seq, run_id, type, data)
    SELECT :session_id, :base + ordinality, :run_id, event->>'type', event->'data'
      FROM jsonb_array_elements(CAST(:events AS jsonb)) WITH ORDINALITY AS e(event, ordinality)
""")
_NOTIFY = text("SELECT pg_notify(:channel, :payload)")
_READ = text("""
    SELECT seq, run_id, type, time, data FROM session_events
     WHERE session_id = :session_id AND seq > :after ORDER BY seq LIMIT :limit
""")
_LINES = rf"""
    SELECT seq, run_id, type, time, data FROM session_events
     WHERE session_id = :session_id AND type = 'log' AND {{position}}
       AND (CAST(:roles AS text[]) IS NULL OR data->>'role' = ANY(:roles))
       AND (CAST(:stage AS text) IS NULL OR data->>'stage' = :stage)
       AND (CAST(:stream AS text) IS NULL OR data->>'stream' = :stream)
       AND (CAST(:run_id AS uuid) IS NULL OR run_id = :run_id)
       AND strpos(lower(data->>'line'), lower(:text)) > 0
       AND (CAST(:words AS text[]) IS NULL
            OR substring(left(regexp_replace(left(lower(data->>'line'), {2 * LOOKED_AT}), '{COLOURS}', '', 'g'),
                              {LOOKED_AT}) from '\m({ANY_WORD})\M') = ANY(:words))
     ORDER BY seq {{order}} LIMIT :limit
"""
_LINES_AFTER = text(_LINES.format(position="seq > :at", order="ASC"))
_LINES_BEFORE = text(_LINES.format(position="seq < :at", order="DESC"))
_POSITION = text("SELECT last_seq, work, user_id FROM sandbox_sessions WHERE session_id = :session_id")


@dataclass(frozen=True, slots=True)
class LineFilter:
    """What a line of a launch has to be. None stands for any; `text` is found in upper and lower case alike."""

    roles: Sequence[str] | None
    stage: str | None
    stream: str | None
    run_id: UUID | None
    text: str
    #: This level or a more severe one.
    level: Level | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """The end of a session's log, and whether more events may follow."""

    last_seq: int
    work: Work | None
    user_id: str

    def is_over_after(self, seq: int) -> bool:
        """True if there is no event after `seq` and the session has no work that could add one."""
        return self.work is None and seq >= self.last_seq


async def insert(
    conn: AsyncConnection, session_id: UUID, run_id: UUID, events: Sequence[NewEvent], *, last_seq: int
) -> None:
    """Append events whose seqs end at `last_seq` and notify readers, all in the caller's transaction.

    The caller must have raised `sandbox_sessions.last_seq` by `len(events)` in the same transaction: the lock on that
    row keeps the seqs without gaps and in the order of commits.
    """
    if not events:
        return
    payload = json.dumps([{"type": event.type, "data": event.data} for event in events]).replace("\\u0000", "\\ufffd")
    await conn.execute(
        _INSERT, {"session_id": session_id, "run_id": run_id, "base": last_seq - len(events), "events": payload}
    )
    await conn.execute(_NOTIFY, {"channel": CHANNEL, "payload": str(session_id)})


async def read(db: Database, session_id: UUID, *, after: int, limit: int) -> tuple[list[Event], Position | None]:
    """The events after a seq, oldest first, and the position of the log, which is read before them.

    The position is None if there is no such session.
    """
    async with db.read() as conn:
        row = (await conn.execute(_POSITION, {"session_id": session_id})).one_or_none()
        if row is None:
            return [], None
        position = Position(row.last_seq, Work(row.work) if row.work else None, row.user_id)
        rows: Sequence[Any] = ()
        if row.last_seq > after:
            rows = (await conn.execute(_READ, {"session_id": session_id, "after": after, "limit": limit})).all()
    return [Event(session_id, r.seq, r.run_id, EventType(r.type), to_utc(r.time), r.data) for r in rows], position


async def read_lines(
    db: Database, session_id: UUID, wanted: LineFilter, *, before: int | None, after: int | None, limit: int
) -> tuple[list[Event], bool]:
    """Up to `limit` matching log events, oldest first, and whether there are more in the direction of reading.

    They are the first ones after the seq `after`, else the last ones before the seq `before`, else the last of all.
    """
    statement = _LINES_BEFORE if after is None else _LINES_AFTER
    at = (before if before is not None else 2**62) if after is None else after
    values = {
        "session_id": session_id,
        "at": at,
        "roles": list(wanted.roles) if wanted.roles else None,
        "stage": wanted.stage,
        "stream": wanted.stream,
        "run_id": wanted.run_id,
        "text": wanted.text,
        "words": sorted(words_from(wanted.level)) if wanted.level else None,
        "limit": limit + 1,
    }
    async with db.read() as conn:
        rows: Sequence[Any] = (await conn.execute(statement, values)).all()
    found = [Event(session_id, r.seq, r.run_id, EventType(r.type), to_utc(r.time), r.data) for r in rows[:limit]]
    return found if after is not None else found[::-1], len(rows) > limit
