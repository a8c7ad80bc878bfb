"""The stages that start the apps, wait for them and show them: `services`, `health` and `preview`."""

from __future__ import annotations

import asyncio

import pytest

from sandbox.domain.events import EventType
from sandbox.domain.session import Session, SessionStatus
from sandbox.domain.stages import StageName
from tests.fakes.errors import guest_error
from tests.fakes.processes import Script, app, http_server
from tests.fakes.world import World, one_role, two_roles


async def error_of(world: World, session: Session) -> tuple[str, str]:
    """Launch a session that is to fail; code and message."""
    assert await world.launch(session) is SessionStatus.ERROR
    error = (await world.read(session)).error
    assert error is not None
    assert error.hint
    return error.code, error.message


async def test_the_app_of_an_earlier_run_is_stopped_first(world: World) -> None:
    session = await world.launched(one_role())
    first = world.guest(session).running_process("app")
    await world.launch(await world.relaunch(session))
    second = world.guest(session).running_process("app")
    assert second.name != first.name
    assert not first.running


async def test_a_start_command_that_cannot_be_run(world: World) -> None:
    session = await world.create_project(one_role(install=None))
    world.guest(session).fail("start", guest_error("agent_refused", "the limit of processes"))
    code, message = await error_of(world, session)
    assert code == "app_start_failed"
    assert "the limit of processes" in message


async def test_the_launch_waits_until_the_app_answers(world: World) -> None:
    session = await world.create_project(one_role())
    world.guest(session).script("app", app(8000, output=b"compiling\nready\n", opens_after=0.5))
    assert await world.launch(session) is SessionStatus.RUNNING
    assert {"compiling", "ready"} < set(await world.lines(session))


@pytest.mark.parametrize("status", [200, 302, 404])
async def test_any_answer_below_500_is_healthy(world: World, status: int) -> None:
    session = await world.create_project(one_role())
    world.guest(session).script("app", app(8000, http_server(status)))
    assert await world.launch(session) is SessionStatus.RUNNING


async def test_an_app_that_does_not_speak_http_is_healthy(world: World) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        await writer.drain()

    session = await world.create_project(one_role())
    world.guest(session).script("app", app(8000, greet))
    assert await world.launch(session) is SessionStatus.RUNNING


async def test_an_app_without_a_port_has_to_live_for_a_while(world: World) -> None:
    session = await world.create_project(one_role(port=None))
    assert await world.launch(session) is SessionStatus.RUNNING
    after = await world.read(session)
    assert after.preview_port is None
    assert await world.events(session, EventType.PREVIEW) == []
    assert dict(await world.stages_of(session))[StageName.PREVIEW] == "skipped"


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        (Script(errors=b"ModuleNotFoundError: flask\n", exit_code=1), "app_exited", "ModuleNotFoundError: flask"),
        (Script(exit_code=0), "app_exited", "exit code 0"),
        (Script(exit_code=127), "app_exited", "exit code 127"),
        (Script(exit_code=137, out_of_memory=True), "out_of_memory", "out of memory"),
    ],
)
async def test_an_app_that_ends_before_it_answers(world: World, script: Script, code: str, words: str) -> None:
    session = await world.create_project(one_role())
    world.guest(session).script("app", script)
    found, message = await error_of(world, session)
    assert found == code
    assert words in message


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        (Script(b"thinking\n", exit_code=None), "port_not_opened", "thinking"),
        (app(3333), "other_port_opened", "3333"),
        (app(8000, http_server(503)), "health_check_failed", "status 503"),
    ],
)
async def test_an_app_that_never_becomes_healthy(world: World, script: Script, code: str, words: str) -> None:
    world.health_timeout_seconds = 1.0
    session = await world.create_project(one_role(health="/ready", stated=("port", "health")))
    world.guest(session).script("app", script)
    found, message = await error_of(world, session)
    assert found == code
    assert words in message


async def test_an_app_that_printed_an_error_and_waits_for_a_correction(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.launch.crash_detection.IDLE_SECONDS", 0.3)
    session = await world.create_project(one_role())
    world.guest(session).script("app", Script(b"[nodemon] app crashed - waiting for changes\n", exit_code=None))
    found, message = await error_of(world, session)
    assert found == "app_exited"
    assert "waits for its code to change" in message


async def test_roles_reach_each_other_on_localhost_once_they_answer(world: World) -> None:
    session = await world.launched(two_roles())
    assert world.guest(session, "frontend").forwarded == ({8000: "backend"}, 3000)
    assert world.guest(session, "backend").forwarded == ({3000: "frontend"}, 8000)


async def test_a_port_that_cannot_be_forwarded_is_a_line_of_the_launch(world: World) -> None:
    session = await world.create_project(two_roles())
    world.guest(session, "frontend").refused_ports = {8000: "something listens on it already"}
    assert await world.launch(session) is SessionStatus.RUNNING
    assert any("localhost:8000" in line and "listens on it already" in line for line in await world.lines(session))


async def test_nothing_is_forwarded_while_apps_start(world: World) -> None:
    session = await world.launched(two_roles())
    guest = world.guest(session, "frontend")
    ports_at_start: list[dict[int, str]] = []

    def note(call: str) -> None:
        if call == "frontend.start":
            ports_at_start.append(guest.forwarded[0])

    world.engine.on_call = note
    await world.launch(await world.relaunch(session))
    assert ports_at_start[-1] == {}
    assert guest.forwarded[0] == {8000: "backend"}


async def test_the_preview_shows_the_front_end(world: World) -> None:
    session = await world.launched(two_roles())
    assert (session.preview_port, session.backend_port) == (3000, 8000)
    (preview,) = await world.events(session, EventType.PREVIEW)
    assert (preview.data["port"], preview.data["role"]) == (3000, "frontend")
