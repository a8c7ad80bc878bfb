"""Launches that meet an engine that is away wait for it. An engine that answers with an error is not waited for."""

from __future__ import annotations

import asyncio

import pytest

from sandbox.domain.session import Session, SessionStatus
from sandbox.domain.stages import PROJECT_STAGES
from sandbox.errors import EngineError
from sandbox.launch.outages import LaunchWaits
from tests.fakes.processes import Script
from tests.fakes.world import QuickAsyncio, World, eventually, one_role, two_roles


async def waits(world: World, session: Session, stage: str) -> Session:
    """Launch a session that is to wait at this stage; its row."""
    with pytest.raises(LaunchWaits, match=stage):
        await world.launch(session)
    after = await world.read(session)
    assert after.status is SessionStatus.CREATING
    assert after.waiting is not None
    assert after.waiting.reason == "engine"
    assert (after.waiting.until - after.waiting.since).total_seconds() == world.engine_wait_seconds
    return after


def break_at(world: World, call: str) -> None:
    """Let the engine go away at the next call of this name."""

    def go_away(name: str) -> None:
        if name == call:
            world.engine.on_call = lambda _: None
            world.engine.go_away()

    world.engine.on_call = go_away


@pytest.mark.parametrize(("call", "stage"), [("ensure_network", "network"), ("ensure_container", "containers")])
async def test_a_launch_waits_and_goes_on_where_it_was(
    world: World, retries: QuickAsyncio, call: str, stage: str
) -> None:
    session = await world.create_project(two_roles())
    break_at(world, call)
    await waits(world, session, stage)
    assert retries.slept == []
    # A replica that carries it on while the engine is away leaves it waiting, and records nothing new.
    before = await world.events(session)
    since = (await waits(world, session, stage)).waiting
    assert await world.events(session) == before
    assert (await world.read(session)).waiting == since
    world.engine.come_back()
    assert await world.launch(session) is SessionStatus.RUNNING
    assert (await world.read(session)).waiting is None
    await world.assert_whole(session, PROJECT_STAGES)
    lines = [line for line in await world.lines(session) if "engine" in line]
    assert [("does not answer" in line, "answers again" in line) for line in lines] == [(True, False), (False, True)]


async def test_a_guest_agent_that_is_lost_with_the_engine_is_waited_for(world: World) -> None:
    session = await world.create_project(one_role())
    world.guest(session).script("install", Script(b"installing\n", exit_code=None))
    run = asyncio.create_task(world.launch(session))

    async def installing() -> bool:
        return "installing" in await world.lines(session)

    await eventually(installing)
    world.engine.go_away()
    world.guest(session).unreachable(times=1)
    world.guest(session).running_process("install").end(0)
    with pytest.raises(LaunchWaits):
        await run
    world.engine.come_back()
    assert await world.launch(session) is SessionStatus.RUNNING
    await world.assert_whole(session, PROJECT_STAGES)


async def test_an_engine_that_answers_with_an_error_is_not_waited_for(world: World, retries: QuickAsyncio) -> None:
    session = await world.create_project(one_role())
    world.engine.fail("ensure_container", EngineError("the engine is restarting", code="engine_unreachable"), times=4)
    assert await world.launch(session) is SessionStatus.ERROR
    assert retries.slept == [1.0, 2.0, 4.0]
    after = await world.read(session)
    assert after.error is not None
    assert after.error.code == "engine_error"


async def test_an_engine_that_is_away_again_and_again_ends_the_launch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.launch.outages.MOST_OUTAGES", 2)
    session = await world.create_project(one_role())
    for _ in range(2):
        break_at(world, "ensure_container")
        await waits(world, session, "containers")
        world.engine.come_back()
    break_at(world, "ensure_container")
    assert await world.launch(session) is SessionStatus.ERROR
    after = await world.read(session)
    assert after.error is not None
    assert (after.error.code, after.waiting) == ("engine_away", None)


async def test_without_a_time_to_wait_the_launch_fails_at_once(world: World) -> None:
    world.engine_wait_seconds = 0
    session = await world.create_project(one_role())
    world.engine.go_away()
    assert await world.launch(session) is SessionStatus.ERROR
    after = await world.read(session)
    assert after.error is not None
    assert (after.error.code, after.error.stage) == ("engine_away", "containers")


async def test_a_relaunch_does_not_inherit_the_wait_of_an_earlier_run(world: World) -> None:
    session = await world.create_project(one_role())
    world.engine.go_away()
    await waits(world, session, "containers")
    await world.execute(
        "UPDATE sandbox_sessions SET waiting = jsonb_set(waiting, '{until}', to_jsonb(NOW() - INTERVAL '1 second'))"
    )
    assert await world.launch(session) is SessionStatus.ERROR
    world.engine.come_back()
    again = await world.relaunch(session)
    assert again.waiting is None
    assert await world.launch(again) is SessionStatus.RUNNING
