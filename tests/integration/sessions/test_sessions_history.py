"""History of sessions that ended long ago: events and runs are deleted, rows and logs stay, event streams still end."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database
from sandbox.events.broker import EventBroker
from sandbox.sessions.housekeeping import store as housekeeping

DAYS = 30
#: More than one batch.
EVENTS = 12_000


async def add_session(conn: AsyncConnection, *, days_ago: int, status: str = "terminated", events: int = 3) -> UUID:
    """A session with a run, a stage, `events` events of which the last is `end`, and a resource row."""
    session_id: UUID = (
        await conn.execute(
            text(
                "INSERT INTO sandbox_sessions"
                " (user_id, status, runtime_type, pipeline_run_id, pipeline_log, last_seq, terminated_at)"
                " VALUES ('u', :status, 'python312', 'r', 'as it was', :events,"
                " CASE WHEN :over THEN NOW() - make_interval(days => :days_ago) END)"
                " RETURNING session_id"
            ),
            {"status": status, "over": status == "terminated", "events": events, "days_ago": days_ago},
        )
    ).scalar_one()
    for statement in (
        "INSERT INTO session_runs (run_id, session_id, pipeline_run_id, trace_id, span_id)"
        " SELECT run_id, session_id, 'r', 't', 's' FROM sandbox_sessions WHERE session_id = :id",
        "INSERT INTO session_stages (run_id, stage, state)"
        " SELECT run_id, 'plan', 'completed' FROM session_runs WHERE session_id = :id",
        "INSERT INTO session_events (session_id, seq, run_id, type, data)"
        " SELECT session_id, seq, run_id, CASE WHEN seq = last_seq THEN 'end' ELSE 'log' END, '{\"status\": \"x\"}'"
        " FROM sandbox_sessions, generate_series(1, last_seq) AS seq WHERE session_id = :id",
        "INSERT INTO session_resources (kind, name, session_id, removed_at)"
        " SELECT 'volume', session_id::text, session_id, terminated_at FROM sandbox_sessions WHERE session_id = :id",
    ):
        await conn.execute(text(statement), {"id": session_id})
    return session_id


async def left(conn: AsyncConnection, session_id: UUID) -> tuple[int, ...]:
    """Rows of events, runs, stages and resources."""
    query = text(
        "SELECT (SELECT count(*) FROM session_events WHERE session_id = :id),"
        " (SELECT count(*) FROM session_runs WHERE session_id = :id),"
        " (SELECT count(*) FROM session_stages JOIN session_runs USING (run_id) WHERE session_id = :id),"
        " (SELECT count(*) FROM session_resources WHERE session_id = :id)"
    )
    return tuple((await conn.execute(query, {"id": session_id})).one())


async def test_only_the_history_of_sessions_that_ended_long_ago_is_deleted(database: Database) -> None:
    async with database.transaction() as conn:
        old = await add_session(conn, days_ago=DAYS + 1)
        recent = await add_session(conn, days_ago=DAYS - 1)
        living = await add_session(conn, days_ago=0, status="running")
        assert await housekeeping.drop_history(conn, DAYS) == 1
        assert await housekeeping.drop_history(conn, DAYS) == 0
        assert await left(conn, old) == (1, 0, 0, 0)
        assert await left(conn, recent) == await left(conn, living) == (3, 1, 1, 1)
        stages = (await conn.execute(text("SELECT count(*) FROM session_stages"))).scalar_one()
        assert stages == 2
        kept = await conn.execute(
            text("SELECT pipeline_log, status FROM sandbox_sessions WHERE session_id = :id"), {"id": old}
        )
        assert tuple(kept.one()) == ("as it was", "terminated")


async def test_many_events_are_deleted_in_batches(database: Database) -> None:
    async with database.transaction() as conn:
        old = await add_session(conn, days_ago=DAYS + 1, events=EVENTS)
        counts = [(await left(conn, old))[0]]
        while not await housekeeping.drop_history(conn, DAYS):
            counts.append((await left(conn, old))[0])
        assert counts == [12_000, 7_000, 2_000]
        assert await left(conn, old) == (1, 0, 0, 0)


async def test_resources_still_on_the_engine_stay_recorded(database: Database) -> None:
    async with database.transaction() as conn:
        old = await add_session(conn, days_ago=DAYS + 1)
        await conn.execute(text("UPDATE session_resources SET removed_at = NULL"))
        assert await housekeeping.drop_history(conn, DAYS) == 1
        assert await left(conn, old) == (1, 0, 0, 1)


@pytest.mark.parametrize("after", [0, 1])
async def test_a_stream_of_its_events_ends_with_the_end_event(database: Database, after: int) -> None:
    async with database.transaction() as conn:
        old = await add_session(conn, days_ago=DAYS + 1, events=2_000)
        assert await housekeeping.drop_history(conn, DAYS) == 1
    broker = EventBroker(database)
    await broker.start()
    async with asyncio.timeout(30):
        received = b"".join([chunk async for chunk in broker.follow(old, after)])
    await broker.close()
    assert received.startswith(b"id: 2000\nevent: end\n")
    assert received.count(b"event: ") == 1
