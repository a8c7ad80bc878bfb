"""Recovery without an admin: after a reboot of the machine, after a restart of the engine, after a full disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from sandbox.domain.events import EventType
from sandbox.domain.session import Session, SessionStatus
from sandbox.sessions.recovery.automatic import MOST_LAUNCHES, AutomaticRecovery
from sandbox.sessions.recovery.compare import Action
from tests.fakes.processes import Script
from tests.fakes.world import World, eventually, one_role, two_roles


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.sessions.recovery.automatic.RETRY_SECONDS", 0.05)
    monkeypatch.setattr("sandbox.sessions.reconciler.POLL_SECONDS", 0.1)
    monkeypatch.setattr("sandbox.sessions.reconciler.ENGINE_SECONDS", 0.05)
    monkeypatch.setattr("sandbox.sessions.watcher.RECONNECT_SECONDS", 0.02)


@asynccontextmanager
async def started(world: World, has_room: Callable[[], bool] = lambda: True) -> AsyncIterator[None]:
    """The parts of the service that bring sessions back, as it starts them."""
    recovery = AutomaticRecovery(world.db, world.recovery(), has_room=has_room)
    await recovery.start()
    try:
        async with (
            world.watching(on_engine=recovery.engine_answers) as watcher,
            world.reconciling(launched=watcher.check),
        ):
            yield
    finally:
        await recovery.close()


async def run_out_of_memory(world: World, session: Session) -> None:
    """Let the session's container end for lack of memory while the service runs."""
    watching = asyncio.Event()
    async with world.watching(on_engine=watching.set):
        await watching.wait()
        world.engine.kill(session.session_id, "main", out_of_memory=True)
        await world.until_status(session, SessionStatus.ERROR)


async def installing(world: World) -> Session:
    """A session whose launch is under way."""
    session = await world.create_project(one_role())
    world.guest(session).script("install", Script(b"installing\n", exit_code=None))
    launch = asyncio.create_task(world.launch(session))

    async def begun() -> bool:
        return bool(world.guest(session).started)

    await eventually(begun)
    launch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await launch
    world.guest(session).script("install", Script(b"installed\n"))
    return session


async def test_after_a_reboot_every_session_comes_back(world: World) -> None:
    at_rest = [await world.launched(one_role()), await world.launched(two_roles()), await world.create_blank()]
    await world.launch(at_rest[-1])
    await world.guest(at_rest[0]).write_file("edited", b"by the user")
    launching = await installing(world)
    for session in [*at_rest, launching]:
        for role in (await world.read(session)).containers:
            world.engine.kill(session.session_id, role, silent=True)
    world.engine.go_away()
    async with started(world):
        await asyncio.sleep(0.2)
        world.engine.come_back()
        for session in [*at_rest[:2], launching]:
            await world.until_status(session, SessionStatus.RUNNING)
        await world.until_status(at_rest[2], SessionStatus.READY)

        async def nothing_differs() -> bool:
            return {finding.action for finding in await world.recovery().findings()} == {Action.NONE}

        await eventually(nothing_differs)
    assert await world.guest(at_rest[0]).stat("edited") is not None


async def test_launches_that_failed_because_of_the_engine_come_back(world: World) -> None:
    world.engine_wait_seconds = 0
    session = await world.create_project(one_role())
    world.engine.go_away()
    assert await world.launch(session) is SessionStatus.ERROR
    world.engine.come_back()
    async with started(world):
        await world.until_status(session, SessionStatus.RUNNING)


async def test_sessions_whose_app_is_the_cause_are_left_as_they_are(world: World) -> None:
    session, other = await world.launched(one_role()), await world.launched(one_role())
    await run_out_of_memory(world, session)
    world.engine.kill(other.session_id, "main", silent=True)
    async with started(world):
        await world.until(other, lambda row: row.run_id != other.run_id and row.status is SessionStatus.RUNNING)
    assert (await world.read(session)).status is SessionStatus.ERROR


async def test_a_session_that_changes_at_the_same_time_is_looked_at_again(world: World) -> None:
    """The watcher records the loss between the comparison and the relaunch."""
    session = await world.launched(one_role())
    world.engine.kill(session.session_id, "main", silent=True)
    recovery = world.recovery()
    found = await recovery.findings()
    async with world.watching() as watcher:
        watcher.check(session.session_id)
        await world.until_status(session, SessionStatus.ERROR)
    assert [outcome.outcome for outcome in await recovery.act(found)] == ["skipped"]
    async with started(world):
        await world.until_status(session, SessionStatus.RUNNING)


async def test_after_a_restart_of_the_engine_sessions_come_back(world: World) -> None:
    """The service runs all the time. A session that was paused, or whose app was the cause, is left as it is."""
    back, paused, of_app = [await world.launched(one_role()) for _ in range(3)]
    await run_out_of_memory(world, of_app)
    async with started(world):
        world.engine.pause(paused.session_id, "main")
        await world.until_status(paused, SessionStatus.ERROR)
        world.engine.go_away()
        world.engine.kill(back.session_id, "main", silent=True)
        await asyncio.sleep(0.1)
        world.engine.come_back()
        await world.until(back, lambda row: row.run_id != back.run_id and row.status is SessionStatus.RUNNING)
    for session, code in ((paused, "container_paused"), (of_app, "out_of_memory")):
        after = await world.read(session)
        assert after.error is not None
        assert (after.run_id, after.error.code) == (session.run_id, code)


@pytest.fixture
def engine_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is brought back because the engine answers, so that what is seen has another cause."""
    monkeypatch.setattr("sandbox.sessions.recovery.automatic._ended_with_the_engine", lambda _: False)


@pytest.mark.usefixtures("engine_stays")
@pytest.mark.parametrize("loss", ["kill", "destroy", "disconnect", "remove_network"])
async def test_what_something_outside_has_ended_or_removed_comes_back(
    world: World, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    monkeypatch.setattr("sandbox.sessions.recovery.automatic.ROUND_SECONDS", 0.05)
    session = await world.launched(two_roles())
    await world.guest(session, "backend").write_file("edited", b"by the user")
    async with started(world):
        role = () if loss == "remove_network" else ("backend",)
        getattr(world.engine, loss)(session.session_id, *role)
        await world.until(session, lambda row: row.run_id != session.run_id and row.status is SessionStatus.RUNNING)
    codes = [event.data["code"] for event in await world.events(session, EventType.PROBLEM)]
    expected = {"kill": "container_exited", "destroy": "container_gone"}.get(loss, "network_lost")
    assert codes == [expected]
    assert await world.guest(session, "backend").stat("edited") is not None


@pytest.mark.usefixtures("engine_stays")
async def test_what_was_lost_just_now_is_left_for_a_round(world: World) -> None:
    """Who has done it may be about to put it right."""
    session = await world.launched(two_roles())
    async with started(world):
        world.engine.disconnect(session.session_id, "backend")
        await world.until_status(session, SessionStatus.ERROR)
        world.engine.reconnect(session.session_id, "backend")
        await world.until_status(session, SessionStatus.RUNNING)
    assert (await world.read(session)).run_id == session.run_id


@pytest.mark.usefixtures("engine_stays")
async def test_a_session_that_is_lost_again_and_again_is_left_in_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.sessions.recovery.automatic.ROUND_SECONDS", 0.05)
    monkeypatch.setattr("sandbox.sessions.recovery.automatic.MOST_LOSSES", 1)
    session = await world.launched(one_role())
    async with started(world):
        world.engine.kill(session.session_id, "main")
        await world.until(session, lambda row: row.run_id != session.run_id and row.status is SessionStatus.RUNNING)
        second = await world.read(session)
        world.engine.kill(session.session_id, "main")
        await world.until_status(session, SessionStatus.ERROR)
        await asyncio.sleep(0.3)
    after = await world.read(session)
    assert (after.run_id, after.status) == (second.run_id, SessionStatus.ERROR)


async def refused_for_space(world: World) -> Session:
    """A session whose launch failed because there was no disk space. The next install succeeds."""
    session = await world.create_project(one_role())
    guest = world.guest(session)
    guest.script("install", Script(b"write: No space left on device\n", exit_code=1))
    assert await world.launch(session) is SessionStatus.ERROR
    after = await world.read(session)
    assert after.error is not None
    assert after.error.code == "disk_full"
    return session


@pytest.mark.usefixtures("engine_stays")
async def test_a_launch_that_a_full_disk_ended_is_repeated_once_there_is_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.sessions.recovery.automatic.ROUND_SECONDS", 0.05)
    session = await refused_for_space(world)
    world.guest(session).script("install", Script(b"installed\n"))
    room = False
    async with started(world, lambda: room):
        await asyncio.sleep(0.3)
        assert (await world.read(session)).run_id == session.run_id
        room = True
        await world.until_status(session, SessionStatus.RUNNING)


async def test_a_launch_that_never_has_enough_room_is_repeated_a_few_times(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.sessions.recovery.automatic.ROUND_SECONDS", 0.05)
    session = await refused_for_space(world)

    async def runs() -> int:
        events = await world.events(session, EventType.STATUS)
        return sum(event.data["status"] == "creating" for event in events)

    async def all_repeated() -> bool:
        return await runs() == 1 + MOST_LAUNCHES and (await world.read(session)).status is SessionStatus.ERROR

    async with started(world):
        await eventually(all_repeated)
        await asyncio.sleep(0.3)
        assert await runs() == 1 + MOST_LAUNCHES
