"""Containers that are lost in the middle of a launch are replaced, and only the stages that need it are done again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from sandbox.domain.session import Session, SessionStatus
from sandbox.domain.stages import StageName
from sandbox.errors import EngineError
from sandbox.launch.losses import MOST_REPLACEMENTS, Loss, stages_to_repeat
from sandbox.launch.outages import LaunchWaits
from tests.fakes.errors import guest_error
from tests.fakes.processes import Script
from tests.fakes.world import Crash, World, crash_at, eventually, one_role, two_roles

#: A way in which a container is lost, and its code.
Way = tuple[Callable[[World, Session], None], str]


def killed(world: World, session: Session) -> None:
    world.engine.kill(session.session_id, "main")


def killed_for_memory(world: World, session: Session) -> None:
    world.engine.kill(session.session_id, "main", out_of_memory=True)


def removed(world: World, session: Session) -> None:
    world.engine.destroy(session.session_id, "main")


WAYS: list[Way] = [
    (killed, "container_exited"),
    (killed_for_memory, "out_of_memory"),
    (removed, "container_gone"),
]
#: A call of each stage after there are containers.
CALLS = {
    "containers": "main.wait_ready",
    "workspace": "main.put_tar",
    "dependencies": "main.output",
    "services": "main.forward_ports",
    "health": "main.tunnel",
}


def lose_at(world: World, session: Session, call: str, lose: Callable[[World, Session], None], times: int = 1) -> None:
    """Lose the container just before the next calls of this name."""
    left = times

    def before(name: str) -> None:
        nonlocal left
        if name == call and left:
            left -= 1
            lose(world, session)

    world.engine.on_call = before


def starts(world: World, session: Session, role: str = "main") -> list[str]:
    """The processes that were started: `install` and `app`, in order."""
    return [name.partition("-")[0] for name in world.guest(session, role).started]


@pytest.mark.parametrize(("lose", "code"), WAYS)
@pytest.mark.parametrize("stage", CALLS)
async def test_a_launch_goes_on_from_the_stage_that_needs_it(
    world: World, stage: str, lose: Callable[[World, Session], None], code: str
) -> None:
    session = await world.create_project(one_role())
    lose_at(world, session, CALLS[stage], lose)
    assert await world.launch(session) is SessionStatus.RUNNING
    started = Counter(stage for stage, state in await world.stages_of(session) if state == "started")
    assert started["plan"] == started["network"] == started["preview"] == 1
    assert started["containers"] == started[stage] == 2
    # An install is done again if it was interrupted, or if what it wrote outside of the volume is gone.
    interrupted = stage == "dependencies"
    gone = code == "container_gone" and stage in ("services", "health")
    assert started["dependencies"] == 1 + (interrupted or gone)
    app_lost = stage == "health"
    assert starts(world, session).count("app") == 1 + app_lost
    if code == "container_gone":
        assert any("is gone" in line for line in await world.lines(session))
    assert (await world.read(session)).containers["main"].id == world.engine.container(session.session_id, "main").id


@pytest.mark.parametrize(("lose", "code"), WAYS)
async def test_a_container_that_is_lost_again_and_again_ends_the_launch_with_its_code(
    world: World, lose: Callable[[World, Session], None], code: str
) -> None:
    session = await world.create_project(one_role())
    lose_at(world, session, "main.tunnel", lose, times=MOST_REPLACEMENTS + 1)
    assert await world.launch(session) is SessionStatus.ERROR
    after = await world.read(session)
    assert after.error is not None
    assert (after.error.code, after.error.stage) == (code, "health")
    assert after.error.hint
    assert starts(world, session).count("app") == MOST_REPLACEMENTS + 1


async def test_files_stay_on_the_volume_of_a_container_that_is_made_anew(world: World) -> None:
    session = await world.create_project(one_role())
    first = ""

    def remove(world: World, session: Session) -> None:
        nonlocal first
        first = world.engine.container(session.session_id, "main").id
        world.engine.container(session.session_id, "main").files.write("installed", b"by the install", None)
        removed(world, session)

    lose_at(world, session, "main.tunnel", remove)
    assert await world.launch(session) is SessionStatus.RUNNING
    assert world.engine.container(session.session_id, "main").id != first
    assert world.guest(session).files().read("installed") == b"by the install"
    assert world.engine.calls.count("main.put_tar") == 1


async def test_what_the_other_roles_print_is_not_repeated(world: World) -> None:
    session = await world.create_project(two_roles())
    for role in ("frontend", "backend"):
        world.guest(session, role).script("install", Script(f"installing {role}\n".encode(), exit_code=None))
    launch = asyncio.create_task(world.launch(session))

    async def both_install() -> bool:
        return {"installing frontend", "installing backend"} <= set(await world.lines(session))

    await eventually(both_install)
    world.engine.kill(session.session_id, "backend")

    async def installs_again() -> bool:
        return (await world.lines(session)).count("installing backend") == 2

    await eventually(installs_again)
    for role in ("frontend", "backend"):
        world.guest(session, role).running_process("install").end(0)
    assert await launch is SessionStatus.RUNNING
    assert (await world.lines(session)).count("installing frontend") == 1
    assert starts(world, session, "frontend") == ["install", "app"]
    assert starts(world, session, "backend") == ["install", "install", "app"]


async def test_a_service_that_dies_while_it_replaces_a_container_is_resumed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await world.create_project(one_role())
    lose_at(world, session, "main.tunnel", killed)
    passed = crash_at(monkeypatch, "none")

    def crash_on_return(point: str) -> None:
        passed.append(point)
        if passed.count("containers:before-act") == 2:
            raise Crash(point)

    monkeypatch.setattr("sandbox.launch.pipeline.crash_point", crash_on_return)
    with pytest.raises(Crash):
        await world.launch(session)
    passed.clear()
    assert await world.launch(session) is SessionStatus.RUNNING
    assert starts(world, session) == ["install", "app", "app"]


async def test_a_failure_that_follows_from_a_lost_container_is_not_blamed_on_the_app(world: World) -> None:
    session = await world.create_project(one_role())
    guest = world.guest(session)
    guest.script("install", Script(b"installing\n", exit_code=None))
    launch = asyncio.create_task(world.launch(session))

    async def installing() -> bool:
        return bool(guest.started)

    await eventually(installing)
    guest.script("install", Script(b"installed\n"))
    guest.running_process("install").end(137)
    killed(world, session)
    assert await launch is SessionStatus.RUNNING


async def test_a_failure_while_the_engine_stops_waits_for_the_engine(world: World) -> None:
    """An engine that is stopped ends the containers, and with them what runs in them, before it is away."""
    session = await world.create_project(one_role())
    guest = world.guest(session)
    guest.script("install", Script(b"installing\n", exit_code=None))
    launch = asyncio.create_task(world.launch(session))

    async def installing() -> bool:
        return bool(guest.started)

    await eventually(installing)
    guest.script("install", Script(b"installed\n"))
    world.engine.go_away()
    guest.running_process("install").end(143)
    with pytest.raises(LaunchWaits):
        await launch
    killed(world, session)
    world.engine.come_back()
    assert await world.launch(session) is SessionStatus.RUNNING


async def test_a_guest_agent_that_stays_silent_has_its_container_made_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.launch.stages.containers.GUEST_ATTEMPTS", 2)
    session = await world.create_project(one_role())
    world.guest(session).fail("wait_ready", guest_error("agent_unreachable", "no"), times=2)
    assert await world.launch(session) is SessionStatus.RUNNING
    assert world.engine.calls.count("remove") == 1
    assert any("does not answer" in line for line in await world.lines(session))


async def test_an_engine_that_cannot_say_what_became_of_the_container_is_asked_again(world: World) -> None:
    session = await world.create_project(one_role())
    lose_at(world, session, "main.put_tar", killed)
    world.engine.fail("inspect_container", EngineError("busy"))
    assert await world.launch(session) is SessionStatus.RUNNING


async def test_a_network_that_is_lost_during_a_launch_is_made_anew(world: World) -> None:
    session = await world.create_project(two_roles())
    world.guest(session, "backend").fail("start", guest_error("agent_unreachable", "no"))

    def cut_off(name: str) -> None:
        if name == "backend.start":
            world.engine.on_call = lambda _: None
            world.engine.remove_network(session.session_id)

    world.engine.on_call = cut_off
    assert await world.launch(session) is SessionStatus.RUNNING
    started = [stage for stage, state in await world.stages_of(session) if state == "started"]
    assert started[4:8] == ["dependencies", "network", "containers", "workspace"]
    assert all(world.engine.container(session.session_id, role).connected for role in ("frontend", "backend"))


@pytest.mark.parametrize(
    ("current", "gone", "repeated"),
    [
        ("containers", False, "containers"),
        ("workspace", True, "containers workspace"),
        ("dependencies", False, "containers workspace dependencies"),
        ("services", False, "containers workspace services"),
        ("services", True, "containers workspace dependencies services"),
        ("health", False, "containers workspace services health"),
        ("preview", True, "containers workspace dependencies services health preview"),
    ],
)
def test_the_stages_that_are_done_again(current: str, gone: bool, repeated: str) -> None:
    loss = Loss("container_exited", "m", ("main",), ("main",), gone)
    assert stages_to_repeat(StageName(current), loss) == repeated.split()
