"""The watcher: containers that end or vanish, apps that end, and an engine that is away, without containers."""

from __future__ import annotations

import asyncio
import signal

import pytest

from sandbox.domain.events import EventType
from sandbox.domain.session import Session, SessionStatus
from sandbox.sessions.watcher import Watcher
from tests.fakes.processes import Script, app
from tests.fakes.world import World, eventually, one_role, two_roles


@pytest.fixture(autouse=True)
def quick_watcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.sessions.watcher.RECONNECT_SECONDS", 0.02)
    monkeypatch.setattr("sandbox.sessions.watcher.RECHECK_SECONDS", 0.02)
    monkeypatch.setattr("sandbox.sessions.app_exits.GRACE_SECONDS", 0.1)
    monkeypatch.setattr("sandbox.sessions.app_exits.RETRY_SECONDS", 0.05)


async def watched(world: World, watcher: Watcher, session: Session) -> Session:
    """Return once the watcher waits for the end of the session's apps."""
    watcher.check(session.session_id)

    async def waited_for() -> bool:
        return any(task.get_name().startswith(f"app-{session.session_id}") for task in asyncio.all_tasks())

    await eventually(waited_for)
    return session


async def lost(world: World, session: Session) -> Session:
    after = await world.until_status(session, SessionStatus.ERROR)
    assert after.error is not None
    assert after.error.stage is None
    assert after.error.hint
    events = await world.events(session)
    assert [event.type for event in events[-3:]] == [EventType.PROBLEM, EventType.STATUS, EventType.END]
    assert events[-3].data["code"] == after.error.code
    return after


@pytest.mark.parametrize("blank", [True, False])
async def test_a_container_that_exits(world: World, watcher: Watcher, blank: bool) -> None:
    session = await world.create_blank() if blank else await world.create_project(one_role())
    await world.launch(session)
    world.engine.kill(session.session_id, "main", exit_code=3)
    after = await lost(world, session)
    assert after.error is not None
    assert after.error.code == "container_exited"
    assert "exited 3" in after.error.message
    assert after.containers["main"].status == "exited"


async def test_a_container_that_is_removed(world: World, watcher: Watcher) -> None:
    session = await world.launched(two_roles())
    world.engine.destroy(session.session_id, "backend")
    after = await lost(world, session)
    assert after.error is not None
    assert after.error.code == "container_gone"
    assert {role: info.status for role, info in after.containers.items()} == {"frontend": "running", "backend": "gone"}


async def test_a_container_that_is_killed_for_memory(world: World, watcher: Watcher) -> None:
    session = await world.launched(one_role())
    world.engine.kill(session.session_id, "main", out_of_memory=True)
    after = await lost(world, session)
    assert after.error is not None
    assert after.error.code == "out_of_memory"


async def test_a_container_that_is_killed_long_after_a_command_ran_out_of_memory(
    world: World, watcher: Watcher
) -> None:
    session = await world.launched(one_role())
    container = world.engine.container(session.session_id, "main")
    world.engine.kill(session.session_id, "main", silent=True)
    container.out_of_memory = True
    watcher.check(session.session_id)
    after = await lost(world, session)
    assert after.error is not None
    assert after.error.code == "container_exited"


async def test_a_container_that_is_cut_off_from_its_network(world: World, watcher: Watcher) -> None:
    session = await world.launched(one_role())
    world.engine.disconnect(session.session_id, "main")
    after = await lost(world, session)
    assert after.error is not None
    assert after.error.code == "network_lost"
    assert await world.launch(await world.relaunch(session)) is SessionStatus.RUNNING
    assert world.engine.container(session.session_id, "main").connected


async def test_a_network_that_is_removed(world: World, watcher: Watcher) -> None:
    session = await world.launched(two_roles())
    world.engine.remove_network(session.session_id)
    after = await lost(world, session)
    assert after.error is not None
    assert after.error.code == "network_lost"


async def test_a_network_that_was_removed_before_the_start_is_found(world: World) -> None:
    session = await world.launched(two_roles())
    world.engine.remove_network(session.session_id, silent=True)
    async with world.watching():
        await lost(world, session)


async def test_what_happened_before_the_start_is_found(world: World) -> None:
    session = await world.launched(one_role())
    world.engine.kill(session.session_id, "main", silent=True)
    async with world.watching():
        await lost(world, session)


async def test_what_happened_while_the_engine_was_away_is_found(world: World, watcher: Watcher) -> None:
    session = await world.launched(one_role())
    await watched(world, watcher, session)
    world.engine.go_away()
    world.engine.destroy(session.session_id, "main", silent=True)
    await asyncio.sleep(0.2)
    assert (await world.read(session)).status is SessionStatus.RUNNING
    world.engine.come_back()
    await lost(world, session)


async def test_a_session_that_is_being_launched_is_left_to_its_launch(world: World, watcher: Watcher) -> None:
    session = await world.create_project(one_role())
    world.guest(session).script("install", Script(b"installing\n", exit_code=None))
    launch = asyncio.create_task(world.launch(session))

    async def installing() -> bool:
        return bool(world.guest(session).started)

    await eventually(installing)
    watcher.check(session.session_id)
    await asyncio.sleep(0.2)
    assert (await world.read(session)).status is SessionStatus.CREATING
    world.guest(session).running_process("install").end(0)
    await launch
    world.engine.kill(session.session_id, "main", silent=True)
    await lost(world, session)


async def test_an_app_that_ends_is_lost_with_its_last_lines(world: World, watcher: Watcher) -> None:
    session = await watched(world, watcher, await world.launched(one_role()))
    process = world.guest(session).running_process("app")
    process.write(b"MemoryError: no more\n")
    process.end(1)
    after = await lost(world, session)
    assert after.error is not None
    assert after.error.code == "app_exited"
    assert "MemoryError: no more" in after.error.message
    assert (after.containers["main"].status, after.containers["main"].app) == ("running", "exited")
    assert after.containers["main"].exit_code == 1


async def test_an_app_that_is_killed_for_memory(world: World, watcher: Watcher) -> None:
    session = await world.create_project(one_role())
    script = app(8000)
    world.guest(session).script(
        "app", Script(script.output, exit_code=None, listens=script.listens, out_of_memory=True)
    )
    await world.launch(session)
    await watched(world, watcher, session)
    world.guest(session).running_process("app").kill()
    after = await lost(world, session)
    assert after.error is not None
    assert after.error.code == "out_of_memory"


async def test_an_app_whose_port_is_served_by_another_process_goes_on(world: World, watcher: Watcher) -> None:
    session = await watched(world, watcher, await world.launched(one_role()))
    guest = world.guest(session)
    guest.script("by-hand", app(8000))
    await guest.start("by-hand", "start it by hand")
    guest.running_process("app").kill(signal.SIGTERM)

    def noted(row: Session) -> bool:
        return row.containers["main"].app == "exited"

    after = await world.until(session, noted)
    assert after.status is SessionStatus.RUNNING
    assert any("the session goes on" in line for line in await world.lines(session))
    # Nothing reports the end of that process: it is polled for.
    guest.running_process("by-hand").kill()
    watcher.check(session.session_id)
    await lost(world, session)


async def test_an_app_without_a_port_may_finish(world: World, watcher: Watcher) -> None:
    session = await watched(world, watcher, await world.launched(one_role(port=None)))
    world.guest(session).running_process("app").end(0)
    after = await world.until(session, lambda row: row.containers["main"].app == "exited")
    assert after.status is SessionStatus.RUNNING
    assert any("its work is done" in line for line in await world.lines(session))


async def test_a_lost_session_of_two_replicas_is_reported_once(world: World) -> None:
    session = await world.launched(one_role())
    async with world.watching(), world.watching():
        world.engine.kill(session.session_id, "main")
        await lost(world, session)
        await asyncio.sleep(0.2)
    assert len(await world.events(session, EventType.PROBLEM)) == 1
