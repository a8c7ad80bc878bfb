"""Claiming work: never more than was asked for, whatever plan PostgreSQL chooses, and fairly among users."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.domain.caller import Caller, CallerRole
from sandbox.domain.session import Session, Work
from sandbox.sessions import store
from tests.fakes.world import LEASE_SECONDS, MANY, OWNER, World

JOINS = ("hashjoin", "mergejoin", "nestloop")


@pytest.mark.parametrize("join", JOINS)
async def test_no_more_is_claimed_than_the_limit(world: World, join: str) -> None:
    for _ in range(6):
        await world.create_blank()
    async with world.db.transaction() as conn:
        for setting in ("hashagg", "sort", "material", *(other for other in JOINS if other != join)):
            await conn.execute(text(f"SET LOCAL enable_{setting} = off"))
        claimed = await claim(conn, limit=2)
    assert len(claimed) == 2


async def claim(
    conn: AsyncConnection,
    *,
    limit: int = MANY,
    per_user: int = MANY,
    running: Sequence[Session] = (),
    with_waiting: bool = True,
) -> list[Session]:
    return await store.claim(
        conn,
        OWNER,
        Work.LAUNCH,
        running=[session.session_id for session in running],
        limit=limit,
        lease=LEASE_SECONDS,
        per_user=per_user,
        with_waiting=with_waiting,
    )


async def test_launches_that_wait_take_nothing_of_their_users_share(world: World) -> None:
    waiting, other = await world.create_blank(), await world.create_blank()
    set_waiting = """
        UPDATE sandbox_sessions
           SET waiting = jsonb_build_object('for', 'engine', 'since', NOW()::timestamptz,
                                            'until', NOW()::timestamptz + make_interval(secs => :left))
         WHERE session_id = :id
    """
    await world.execute(set_waiting, id=waiting.session_id, left=600)
    async with world.db.transaction() as conn:
        claimed = await claim(conn, per_user=1, with_waiting=False)
    assert [session.session_id for session in claimed] == [other.session_id]
    # One that has waited for as long as it may is claimed, to end.
    await world.execute(set_waiting, id=waiting.session_id, left=-1)
    async with world.db.transaction() as conn:
        claimed = await claim(conn, with_waiting=False, running=[other])
    assert [session.session_id for session in claimed] == [waiting.session_id]


async def test_users_take_turns(world: World) -> None:
    for name in ("ada", "ada", "ada", "ada", "bob", "cyd"):
        await world.create_blank(Caller(name, CallerRole.USER, "token"))
    turns = []
    claimed: list[Session] = []
    for _ in range(3):
        async with world.db.transaction() as conn:
            new = await claim(conn, limit=2, running=claimed)
        turns.append(sorted(session.user_id for session in new))
        claimed += new
    assert turns == [["ada", "bob"], ["ada", "cyd"], ["ada", "ada"]]


async def test_a_user_has_no_more_than_its_share(world: World) -> None:
    sessions = [await world.create_blank() for _ in range(4)]
    other = await world.create_blank(Caller("bob", CallerRole.USER, "token"))
    async with world.db.transaction() as conn:
        first = await claim(conn, per_user=2)
    assert {session.session_id for session in first} == {
        sessions[0].session_id,
        sessions[1].session_id,
        other.session_id,
    }
    async with world.db.transaction() as conn:
        assert await claim(conn, per_user=2, running=first) == []
    # One has ended.
    async with world.db.transaction() as conn:
        await conn.execute(
            text("UPDATE sandbox_sessions SET work = NULL WHERE session_id = :id"), {"id": sessions[0].session_id}
        )
        running = [session for session in first if session.session_id != sessions[0].session_id]
        (next_one,) = await claim(conn, per_user=2, running=running)
    assert next_one.session_id == sessions[2].session_id


async def test_replicas_that_claim_at_once_claim_different_sessions(world: World) -> None:
    for _ in range(4):
        await world.create_blank()
    async with world.db.transaction() as one, world.db.transaction() as other:
        first, second = await claim(one, limit=2), await claim(other, limit=4)
    assert len(first) == len(second) == 2
    assert not {session.session_id for session in first} & {session.session_id for session in second}
