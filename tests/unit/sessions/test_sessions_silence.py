"""Alive means answering: paused containers and silent guest agents are seen, and as before once they answer."""

from __future__ import annotations

import asyncio

import pytest

from sandbox.domain.events import EventType
from sandbox.domain.session import Session, SessionStatus
from sandbox.errors import GuestError
from sandbox.sessions.recovery.compare import Action
from sandbox.sessions.watcher import Watcher
from tests.fakes.processes import Script
from tests.fakes.world import CALLER, World, eventually, one_role, two_roles


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.sessions.watcher.RECHECK_SECONDS", 0.02)
    monkeypatch.setattr("sandbox.sessions.guest_monitor.ROUND_SECONDS", 0.05)
    monkeypatch.setattr("sandbox.sessions.app_exits.GRACE_SECONDS", 0.1)
    monkeypatch.setattr("sandbox.sessions.app_exits.RETRY_SECONDS", 0.05)


async def until_error(world: World, session: Session, code: str) -> Session:
    return await world.until(session, lambda row: row.error is not None and row.error.code == code)


async def refusal(world: World, session: Session, role: str | None = None) -> str:
    """The code with which a command is refused."""
    with pytest.raises(GuestError) as refused:
        await world.sessions.guest(CALLER, session.session_id, role)
    return refused.value.code


@pytest.mark.parametrize("blank", [True, False])
@pytest.mark.parametrize("silent", [True, False])
async def test_a_session_that_is_paused_and_resumed(
    world: World, watcher: Watcher, *, blank: bool, silent: bool
) -> None:
    session = await world.create_blank() if blank else await world.create_project(one_role())
    before = await world.launch(session)
    world.guest(session).script("true", Script(b"done"))
    world.engine.pause(session.session_id, "main", silent=silent)
    after = await until_error(world, session, "container_paused")
    assert after.status is SessionStatus.ERROR
    assert after.containers["main"].status == "paused"
    assert await refusal(world, session) == "container_paused"
    ended = await world.events(session)
    assert [event.type for event in ended[-3:]] == [EventType.PROBLEM, EventType.STATUS, EventType.END]

    world.engine.resume(session.session_id, "main", silent=silent)
    again = await world.until_status(session, before)
    assert (again.error, again.run_id) == (None, after.run_id)
    assert again.containers["main"].status == "running"
    guest, _ = await world.sessions.guest(CALLER, session.session_id, None)
    assert (await guest.exec("true")).stdout == b"done"
    events = await world.events(session)
    assert [event.type for event in events[-3:]] == [EventType.LOG, EventType.STATUS, EventType.END]
    assert events[-1].data["status"] == before.value
    if not blank:
        assert [name.partition("-")[0] for name in world.guest(session).started] == ["install", "app"]


async def test_a_guest_agent_that_is_silent(world: World, watcher: Watcher) -> None:
    session = await world.launched(two_roles())
    world.guest(session, "backend").unreachable(times=10_000)
    after = await until_error(world, session, "agent_unreachable")
    assert after.error is not None
    assert "backend" in after.error.message
    assert after.error.hint
    assert after.containers["backend"].status == "running"
    assert await refusal(world, session, "backend") == "agent_unreachable"
    world.guest(session, "backend").unreachable(times=0)
    await world.until_status(session, SessionStatus.RUNNING)


async def test_a_guest_agent_that_is_silent_for_a_moment_is_left_alone(world: World, watcher: Watcher) -> None:
    session = await world.launched(one_role())
    world.guest(session).unreachable(times=1)

    async def answered() -> bool:
        return world.engine.calls.count("main.wait_ready") > 10

    await eventually(answered)
    assert (await world.read(session)).status is SessionStatus.RUNNING
    assert await world.events(session, EventType.PROBLEM) == []


async def test_the_same_error_is_recorded_once(world: World, watcher: Watcher) -> None:
    session = await world.launched(one_role())
    world.engine.pause(session.session_id, "main")
    await until_error(world, session, "container_paused")
    for _ in range(5):
        watcher.check(session.session_id)
        await asyncio.sleep(0.05)
    assert len(await world.events(session, EventType.PROBLEM)) == 1


async def test_a_paused_container_that_is_then_killed(world: World, watcher: Watcher) -> None:
    session = await world.launched(one_role())
    world.engine.pause(session.session_id, "main")
    await until_error(world, session, "container_paused")
    world.engine.kill(session.session_id, "main")
    await until_error(world, session, "container_exited")


async def test_an_app_that_ended_meanwhile_is_found(world: World, watcher: Watcher) -> None:
    session = await world.launched(one_role())
    world.engine.pause(session.session_id, "main")
    await until_error(world, session, "container_paused")
    world.engine.container(session.session_id, "main").processes.clear()
    world.engine.resume(session.session_id, "main")
    await until_error(world, session, "app_exited")


async def test_a_network_that_is_attached_again_by_hand(world: World, watcher: Watcher) -> None:
    session = await world.launched(one_role())
    world.engine.disconnect(session.session_id, "main")
    await until_error(world, session, "network_lost")
    world.engine.reconnect(session.session_id, "main")
    await world.until_status(session, SessionStatus.RUNNING)


async def test_recovery_resumes_what_is_paused(world: World) -> None:
    session = await world.launched(one_role())
    async with world.watching():
        world.engine.pause(session.session_id, "main")
        await until_error(world, session, "container_paused")
    (outcome,) = await world.recovery().recover([session.session_id], dry_run=False)
    assert (outcome.finding.action, outcome.outcome) == (Action.RESTART, "done")
    assert await world.launch(session) is SessionStatus.RUNNING
    assert world.engine.container(session.session_id, "main").status == "running"


async def test_a_container_that_is_paused_during_a_launch_is_resumed(world: World) -> None:
    session = await world.create_project(one_role())
    world.guest(session).script("install", Script(b"installing\n", exit_code=None))
    launch = asyncio.create_task(world.launch(session))

    async def installing() -> bool:
        return "installing" in await world.lines(session)

    await eventually(installing)
    world.engine.pause(session.session_id, "main")
    world.engine.container(session.session_id, "main").processes[world.guest(session).started[0]].write(b"more\n")

    async def resumed() -> bool:
        return world.engine.container(session.session_id, "main").status == "running"

    await eventually(resumed)
    world.guest(session).running_process("install").end(0)
    assert await launch is SessionStatus.RUNNING
    # The install has gone on, and nothing that it printed is repeated.
    assert [name.partition("-")[0] for name in world.guest(session).started] == ["install", "app"]
    assert [line for line in await world.lines(session) if line in ("installing", "more")] == ["installing", "more"]
