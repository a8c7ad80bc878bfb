"""Expiry and activity of sessions, without containers: who is warned, who ends, and what counts as use."""

from __future__ import annotations

from uuid import UUID

from sandbox.domain.events import EventType
from sandbox.domain.session import Session, SessionStatus, Work
from sandbox.sessions.housekeeping import store as housekeeping
from sandbox.sessions.housekeeping.app_activity import touch_sessions_with_output
from tests.fakes.world import World, one_role

IDLE_SECONDS = 3600


async def idle(world: World, session: Session, seconds: int) -> None:
    """Let the session be unused for that long, with an idle timeout of an hour."""
    await world.execute(
        "UPDATE sandbox_sessions SET idle_timeout_seconds = :timeout,"
        " last_active = NOW() - make_interval(secs => :seconds) WHERE session_id = :id",
        timeout=IDLE_SECONDS,
        seconds=seconds,
        id=session.session_id,
    )


async def active(world: World) -> list[UUID]:
    """One turn of polling what the apps have printed; the sessions that count as used."""
    async with world.db.transaction() as conn:
        return await touch_sessions_with_output(conn, world.engine)


async def expired(world: World) -> list[UUID]:
    async with world.db.transaction() as conn:
        return await housekeeping.expire(conn)


async def warned(world: World) -> list[UUID]:
    async with world.db.transaction() as conn:
        return await housekeeping.warn(conn)


async def test_an_idle_session_is_warned_once_and_then_ends(world: World) -> None:
    session = await world.launched(one_role())
    assert await warned(world) == await expired(world) == []
    await idle(world, session, IDLE_SECONDS - 60)
    assert await warned(world) == [session.session_id]
    assert await warned(world) == []
    assert any("this session ends at" in line for line in await world.lines(session))
    await idle(world, session, IDLE_SECONDS + 1)
    assert await expired(world) == [session.session_id]
    assert (await world.read(session)).work is Work.TERMINATE
    async with world.reconciling():
        await world.until_status(session, SessionStatus.TERMINATED)
    assert (await world.events(session))[-1].type is EventType.END


async def test_an_app_that_prints_keeps_its_session(world: World) -> None:
    session = await world.launched(one_role())
    await idle(world, session, 0)
    assert await active(world) == []  # the first turn only notes how much there is
    await idle(world, session, IDLE_SECONDS + 1)
    world.guest(session).running_process("app").write(b"a request was served\n")
    assert await active(world) == [session.session_id]
    assert await expired(world) == []


async def test_an_app_that_prints_nothing_does_not_keep_its_session(world: World) -> None:
    session = await world.launched(one_role())
    await idle(world, session, 0)
    await active(world)
    await idle(world, session, IDLE_SECONDS + 1)
    assert await active(world) == []
    assert await expired(world) == [session.session_id]


async def test_a_guest_agent_that_does_not_answer_does_not_keep_its_session(world: World) -> None:
    session = await world.launched(one_role())
    await idle(world, session, 0)
    await active(world)
    await idle(world, session, IDLE_SECONDS + 1)
    world.guest(session).running_process("app").write(b"a request was served\n")
    world.guest(session).unreachable(times=1)
    assert await active(world) == []
    assert await expired(world) == [session.session_id]


async def test_a_session_that_is_being_launched_does_not_expire_by_idling(world: World) -> None:
    session = await world.create_project(one_role())
    await idle(world, session, IDLE_SECONDS + 1)
    assert await warned(world) == await expired(world) == []


async def test_the_longest_lifetime_ends_also_a_session_that_is_used(world: World) -> None:
    session = await world.launched(one_role())
    await world.execute("UPDATE sandbox_sessions SET expires_at = NOW() - INTERVAL '1 second'")
    assert await expired(world) == [session.session_id]
