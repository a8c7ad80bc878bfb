"""The reconciler: what it claims and how much at once, what overtakes it, and what it leaves to others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.domain.session import Session, SessionStatus, Work
from sandbox.domain.stages import PROJECT_STAGES
from sandbox.engine.base import ResourceKind
from sandbox.errors import EngineError, StageFailed
from tests.fakes.processes import Script
from tests.fakes.world import QuickAsyncio, World, eventually, one_role

HANGS = Script(b"installing\n", exit_code=None)


@pytest.fixture(autouse=True)
def quick_reconciler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.sessions.reconciler.POLL_SECONDS", 0.1)
    monkeypatch.setattr("sandbox.sessions.reconciler.ENGINE_SECONDS", 0.1)
    monkeypatch.setattr("sandbox.sessions.reconciler.asyncio", QuickAsyncio(0.05))


async def hanging(world: World) -> Session:
    """A session whose install does not end by itself."""
    session = await world.create_project(one_role())
    world.guest(session).script("install", HANGS)
    return session


async def until_installing(world: World, *sessions: Session) -> None:
    async def installing() -> bool:
        return all(world.guest(session).started for session in sessions)

    await eventually(installing)


async def owner_of(world: World, session: Session) -> int | None:
    async with world.db.read() as conn:
        rows = await conn.exec_driver_sql(
            "SELECT owner FROM sandbox_sessions WHERE session_id = %(id)s", {"id": session.session_id}
        )
        owner: int | None = rows.scalar_one()
    return owner


async def test_new_sessions_are_launched_and_reported(world: World) -> None:
    ended: list[UUID] = []
    async with world.reconciling(launched=ended.append):
        sessions = [await world.create_project(one_role()), await world.create_blank()]
        await world.until_status(sessions[0], SessionStatus.RUNNING)
        await world.until_status(sessions[1], SessionStatus.READY)

        async def reported() -> bool:
            return set(ended) == {session.session_id for session in sessions}

        await eventually(reported)
        assert [await owner_of(world, session) for session in sessions] == [None, None]


async def test_the_end_of_a_launch_is_reported_although_its_lease_is_renewed_just_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row at rest has no owner. The reconciler can observe that before the launch's own task goes on."""
    transaction = world.db.transaction

    @asynccontextmanager
    async def slow_to_return() -> AsyncIterator[AsyncConnection]:
        async with transaction() as conn:
            yield conn
        task = asyncio.current_task()
        if task is not None and task.get_name().startswith("launch-"):
            await asyncio.sleep(0.4)

    monkeypatch.setattr(world.db, "transaction", slow_to_return)
    ended: list[UUID] = []
    session = await world.create_blank()
    async with world.reconciling(launched=ended.append):
        await world.until_status(session, SessionStatus.READY)

        async def reported() -> bool:
            return ended == [session.session_id]

        await eventually(reported)


async def test_sessions_from_before_the_start_are_launched(world: World) -> None:
    session = await world.create_project(one_role())
    async with world.reconciling():
        await world.until_status(session, SessionStatus.RUNNING)


async def test_no_more_launches_of_one_user_run_at_once_than_may(world: World) -> None:
    sessions = [await hanging(world) for _ in range(3)]
    async with world.reconciling(launches_per_user=2):
        await until_installing(world, *sessions[:2])
        await asyncio.sleep(0.3)
        assert not world.guest(sessions[2]).started
        # One that ends makes room for the next, the oldest first.
        world.guest(sessions[0]).running_process("install").end(0)
        await until_installing(world, sessions[2])
        for session in sessions[1:]:
            world.guest(session).running_process("install").end(0)
            await world.until_status(session, SessionStatus.RUNNING)


async def test_installs_hold_no_slot_that_another_launch_needs(world: World) -> None:
    installing = [await hanging(world) for _ in range(3)]
    async with world.reconciling(concurrent_launches=1):
        await until_installing(world, *installing)
        blank = await world.create_blank()
        await world.until_status(blank, SessionStatus.READY)


async def test_no_more_launches_run_at_once_than_four_for_each_slot(world: World) -> None:
    installing = [await hanging(world) for _ in range(5)]
    async with world.reconciling(concurrent_launches=1):
        await until_installing(world, *installing[:4])
        await asyncio.sleep(0.3)
        assert not world.guest(installing[4]).started
        world.guest(installing[0]).running_process("install").end(0)
        await until_installing(world, installing[4])


async def test_terminations_do_not_wait_for_launches(world: World) -> None:
    session, other = await hanging(world), await world.create_blank()
    async with world.reconciling(concurrent_launches=1):
        await until_installing(world, session)
        await world.terminate(other)
        await world.until_status(other, SessionStatus.TERMINATED)


async def test_terminating_removes_everything_and_ends_the_events(world: World) -> None:
    session = await world.launched(one_role())
    async with world.reconciling():
        await world.terminate(session)
        after = await world.until_status(session, SessionStatus.TERMINATED)
    assert after.containers == {}
    assert after.terminated_at is not None
    assert {r.kind for r in await world.engine.list_resources()} == {ResourceKind.NETWORK}  # the shared one
    events = await world.events(session)
    assert [(event.type.value, event.data["status"]) for event in events[-2:]] == [
        ("status", "terminated"),
        ("end", "terminated"),
    ]


async def test_terminating_overtakes_a_launch(world: World) -> None:
    session = await hanging(world)
    async with world.reconciling():
        await until_installing(world, session)
        await world.terminate(session)
        await world.until_status(session, SessionStatus.TERMINATED)
    assert ("dependencies", "completed") not in await world.stages_of(session)
    assert [r for r in await world.engine.list_resources() if r.session_id == session.session_id] == []


async def test_terminating_waits_for_an_engine_that_is_away(world: World) -> None:
    session = await world.launched(one_role())
    world.engine.go_away()
    async with world.reconciling():
        await world.terminate(session)
        await asyncio.sleep(0.3)
        assert (await world.read(session)).work is Work.TERMINATE
        world.engine.come_back()
        await world.until_status(session, SessionStatus.TERMINATED)


async def until_waiting(world: World, *sessions: Session) -> None:
    for session in sessions:
        await world.until(session, lambda row: row.waiting is not None)


async def test_launches_wait_for_an_engine_that_is_away_and_hold_no_slot(world: World) -> None:
    world.engine.go_away()
    sessions = [await world.create_project(one_role()) for _ in range(3)]
    undetected = await world.create_project(StageFailed("plan_undetected", "what is it"))
    async with world.reconciling(concurrent_launches=1):
        await until_waiting(world, *sessions)
        # The project that cannot be launched at all does not wait behind them.
        await world.until_status(undetected, SessionStatus.ERROR)
        assert [await owner_of(world, session) for session in sessions] == [None] * 3
        world.engine.come_back()
        for session in sessions:
            after = await world.until_status(session, SessionStatus.RUNNING)
            assert after.waiting is None
            await world.assert_whole(session, PROJECT_STAGES)


async def test_a_launch_that_waits_is_carried_on_by_the_next_replica(world: World) -> None:
    world.engine.go_away()
    session = await world.create_project(one_role())
    async with world.reconciling():
        await until_waiting(world, session)
    since = (await world.read(session)).waiting
    async with world.reconciling():
        await asyncio.sleep(0.3)
        assert (await world.read(session)).waiting == since
        world.engine.come_back()
        await world.until_status(session, SessionStatus.RUNNING)
    await world.assert_whole(session, PROJECT_STAGES)


async def test_a_launch_that_has_waited_for_too_long_fails(world: World) -> None:
    world.engine.go_away()
    world.engine_wait_seconds = 0.5
    session = await world.create_project(one_role())
    async with world.reconciling():
        after = await world.until_status(session, SessionStatus.ERROR)
    assert after.error is not None
    assert (after.error.code, after.error.stage) == ("engine_away", "containers")
    assert "sandbox recover" in after.error.hint


async def test_a_launch_that_waits_can_be_ended(world: World) -> None:
    world.engine.go_away()
    session = await world.create_project(one_role())
    async with world.reconciling():
        await until_waiting(world, session)
        await world.terminate(session)
        world.engine.come_back()
        await world.until_status(session, SessionStatus.TERMINATED)


async def test_closing_leaves_the_run_to_the_next_replica(world: World) -> None:
    session = await hanging(world)
    async with world.reconciling() as first:
        await until_installing(world, session)
        assert await owner_of(world, session) == first.number
    process = world.guest(session).running_process("install")
    async with world.reconciling():
        process.end(0)
        await world.until_status(session, SessionStatus.RUNNING)
    await world.assert_whole(session, PROJECT_STAGES)
    assert [name.partition("-")[0] for name in world.guest(session).started] == ["install", "app"]


async def test_work_of_a_replica_that_lives_is_left_alone(world: World) -> None:
    session = await hanging(world)
    async with world.reconciling() as first:
        await until_installing(world, session)
        async with world.reconciling() as second:
            assert second.number != first.number
            await asyncio.sleep(0.3)
            assert await owner_of(world, session) == first.number
        world.guest(session).running_process("install").end(0)
        await world.until_status(session, SessionStatus.RUNNING)
    await world.assert_whole(session, PROJECT_STAGES)


async def test_work_of_a_replica_whose_lease_ran_out_is_taken_over(world: World) -> None:
    session = await hanging(world)
    async with world.reconciling() as first:
        await until_installing(world, session)
        # As if it had been frozen: another replica now owns the session, and it finds out.
        await world.execute("UPDATE sandbox_sessions SET owner = :other", other=first.number + 1000)
        await world.execute("UPDATE sandbox_sessions SET lease_until = NOW() - INTERVAL '1 second'")
        world.guest(session).running_process("install").end(0)
        await world.until_status(session, SessionStatus.RUNNING)
    await world.assert_whole(session, PROJECT_STAGES)


async def test_a_relaunch_during_the_end_of_a_run_is_a_run_of_its_own(world: World) -> None:
    session = await world.create_project(one_role())
    async with world.reconciling():
        await world.until_status(session, SessionStatus.RUNNING)
        again = await world.relaunch(session)
        after = await world.until_status(again, SessionStatus.RUNNING)
        assert after.run_id == again.run_id != session.run_id
    assert len(await world.stages_of(session)) == 2 * 2 * len(PROJECT_STAGES)


async def test_an_unexpected_error_of_a_termination_is_tried_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    session = await world.launched(one_role())
    mistakes = 1

    def mistake(call: str) -> None:
        nonlocal mistakes
        if call == "remove_session" and mistakes:
            mistakes -= 1
            raise ZeroDivisionError

    world.engine.on_call = mistake
    world.engine.fail("remove_session", EngineError("busy"), times=2)
    async with world.reconciling():
        await world.terminate(session)
        await world.until_status(session, SessionStatus.TERMINATED)
    assert "it will be tried again" in caplog.text
