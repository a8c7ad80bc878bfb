"""A launch that dies at any point and is run again ends as if nothing had happened: nothing twice, nothing missing."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from sandbox.domain.session import Session, SessionStatus
from sandbox.domain.stages import BLANK_STAGES, PROJECT_STAGES, StageName
from tests.fakes.processes import Script
from tests.fakes.world import Crash, World, crash_at, eventually, one_role

POINTS = ("before-act", "after-act", "after-checkpoint")
ENDS = ("end:before-checkpoint", "end:after-checkpoint")


def points(stages: tuple[StageName, ...]) -> list[str]:
    """Each stage is started with the checkpoint of the one before it."""
    later = [f"{stage}:{point}" for stage in stages for point in POINTS]
    return [*([f"{StageName.PLAN}:before-start"] if StageName.PLAN in stages else []), *later, *ENDS]


async def resume(world: World, session: Session) -> Session:
    """Carry a launch on that has crashed, as another process would, unless it had ended before."""
    if (await world.read(session)).work is not None:
        await world.launch(session)
    return await world.read(session)


@pytest.mark.parametrize("point", points(PROJECT_STAGES))
async def test_a_project_resumes_at(world: World, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    session = await world.create_project(one_role())
    passed = crash_at(monkeypatch, point)
    with pytest.raises(Crash, match=point):
        await world.launch(session)
    before = await world.events(session)
    after = await resume(world, session)
    assert (after.status, after.work, after.preview_port) == (SessionStatus.RUNNING, None, 8000)
    assert (await world.events(session))[: len(before)] == before
    await world.assert_whole(session, PROJECT_STAGES)
    assert [name.partition("-")[0] for name in world.guest(session).started] == ["install", "app"]
    # Only the stage that was under way is run again.
    acted = Counter(name for name in passed if name.endswith(":before-act"))
    again = {name for name, times in acted.items() if times > 1}
    assert again <= {point.partition(":")[0] + ":before-act"}


@pytest.mark.parametrize("point", points(BLANK_STAGES[-1:]))
async def test_a_blank_session_resumes_at(world: World, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    session = await world.create_blank()
    crash_at(monkeypatch, point)
    with pytest.raises(Crash, match=point):
        await world.launch(session)
    after = await resume(world, session)
    assert (after.status, after.work) == (SessionStatus.READY, None)
    await world.assert_whole(session, BLANK_STAGES)


async def test_every_crash_point_of_the_code_is_among_these(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await world.create_project(one_role())
    passed = crash_at(monkeypatch, "none")
    await world.launch(session)
    assert passed == points(PROJECT_STAGES)


async def test_a_launch_resumes_at_every_call_of_engine_and_guest_agents(world: World) -> None:
    """Whatever has taken effect before the call that is not made any more is found when the launch is run again."""
    session = await world.create_project(one_role())
    await world.launch(session)
    # What follows depends on the time that the apps take, and calls only poll.
    calls = world.engine.calls.index("main.tunnel")
    for crashing in range(calls):
        session = await world.create_project(one_role())
        remaining = crashing

        def count_down(call: str) -> None:
            nonlocal remaining
            if remaining == 0:
                raise Crash(call)
            remaining -= 1

        world.engine.on_call = count_down
        with pytest.raises(Crash) as crash:
            await world.launch(session)
        world.engine.on_call = lambda _: None
        after = await resume(world, session)
        assert after.status is SessionStatus.RUNNING, crash.value
        await world.assert_whole(session, PROJECT_STAGES)
        assert [name.partition("-")[0] for name in world.guest(session).started] == ["install", "app"]
        await world.engine.remove_session(session.session_id)


async def test_output_continues_at_the_byte_where_it_stopped(world: World) -> None:
    session = await world.create_project(one_role())
    guest = world.guest(session)
    guest.script("install", Script(b"one\ntwo\nthr", exit_code=None))
    run = asyncio.create_task(world.launch(session))

    async def two_lines() -> bool:
        return "two" in await world.lines(session)

    await eventually(two_lines)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    process = guest.running_process("install")
    process.write(b"ee\nfour\n")
    process.end(0)
    assert await world.launch(session) is SessionStatus.RUNNING
    await world.assert_whole(session, PROJECT_STAGES)
    numbers = {"one", "two", "three", "four"}
    assert [line for line in await world.lines(session) if line in numbers] == ["one", "two", "three", "four"]


async def test_an_install_that_failed_while_the_service_was_away_fails_the_launch(world: World) -> None:
    session = await world.create_project(one_role())
    guest = world.guest(session)
    guest.script("install", Script(b"working\n", exit_code=None))
    run = asyncio.create_task(world.launch(session))

    async def installing() -> bool:
        return "working" in await world.lines(session)

    await eventually(installing)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    guest.running_process("install").end(1)
    assert await world.launch(session) is SessionStatus.ERROR
    after = await world.read(session)
    assert after.error is not None
    assert after.error.code == "dependency_install_failed"
    assert len(guest.started) == 1
