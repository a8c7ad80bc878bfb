"""Each stage up to the dependencies: what it does, what it does when the thing is there already, how it fails."""

from __future__ import annotations

import pytest

from sandbox.domain.egress import parse_egress
from sandbox.domain.session import Session, SessionStatus
from sandbox.domain.stages import StageName
from sandbox.engine.base import ResourceKind
from sandbox.engine.labels import network_name
from sandbox.errors import EngineError, InvalidInput, SandboxError
from tests.fakes.errors import guest_error
from tests.fakes.processes import Script
from tests.fakes.world import World, one_role, two_roles


async def error_of(world: World, session: Session) -> tuple[str, str, str]:
    """Launch a session that is to fail; code, message and hint."""
    assert await world.launch(session) is SessionStatus.ERROR
    error = (await world.read(session)).error
    assert error is not None
    assert error.hint
    return error.code, error.message, error.hint


async def state_of(world: World, session: Session, stage: StageName) -> str:
    return dict(await world.stages_of(session))[stage]


async def resource_names(world: World) -> set[tuple[str, str]]:
    return {(resource.kind.value, resource.name) for resource in await world.engine.list_resources()}


async def test_plan_is_stored_and_shown(world: World) -> None:
    session = await world.launched(one_role(framework="FastAPI"))
    assert session.plan is not None
    assert session.runtime_type == "python312"
    assert "FastAPI, python312, port 8000; start: start the app" in await world.lines(session)


async def test_network_is_only_for_several_roles(world: World) -> None:
    session = await world.launched(one_role())
    assert await state_of(world, session, StageName.NETWORK) == "skipped"
    assert "ensure_network" not in world.engine.calls


async def test_a_restricted_session_has_a_network_of_its_own(world: World) -> None:
    session = await world.create_blank(egress=parse_egress(["api.example.com"]))
    assert await world.launch(session) is SessionStatus.READY
    assert await state_of(world, session, StageName.NETWORK) == "completed"
    network = network_name(session.session_id)
    assert world.engine.container(session.session_id, "main").spec.network == network


async def test_a_restriction_that_the_host_cannot_enforce_fails_the_launch(world: World) -> None:
    world.engine.enforces_egress = False
    session = await world.create_blank(egress=parse_egress("none"))
    assert await world.launch(session) is SessionStatus.ERROR
    error = (await world.read(session)).error
    assert error is not None
    assert (error.code, error.stage) == ("egress_unavailable", "network")
    assert "ensure_container" not in world.engine.calls


async def test_what_is_made_on_the_engine_is_recorded_before(world: World) -> None:
    session = await world.create_project(two_roles())
    world.engine.fail("ensure_container", EngineError("no"), times=8)
    await world.launch(session)
    async with world.db.read() as conn:
        rows = await conn.exec_driver_sql("SELECT kind, name FROM session_resources WHERE removed_at IS NULL")
        recorded = {(row.kind, row.name) for row in rows}
    assert {kind for kind, _ in recorded} == {"network", "container", "volume"}
    assert len(recorded) == 5
    assert await resource_names(world) < recorded


async def test_containers_that_run_are_left_alone(world: World) -> None:
    session = await world.launched(one_role())
    before = world.engine.container(session.session_id, "main").state
    again = await world.relaunch(session)
    await world.launch(again)
    assert world.engine.container(session.session_id, "main").state == before


async def test_a_container_that_was_stopped_is_started(world: World) -> None:
    session = await world.launched(one_role())
    world.engine.kill(session.session_id, "main")
    again = await world.relaunch(session)
    assert await world.launch(again) is SessionStatus.RUNNING
    assert (await world.read(session)).containers["main"].id == session.containers["main"].id


async def test_a_container_of_another_image_is_replaced_on_its_volume(world: World) -> None:
    session = await world.launched(one_role())
    await world.guest(session).write_file("edited", b"by the user")
    assert session.project_id is not None
    await world.projects.add(session.project_id, one_role(runtime="node20"))
    again = await world.relaunch(session)
    assert await world.launch(again) is SessionStatus.RUNNING
    after = await world.read(session)
    assert after.containers["main"].id != session.containers["main"].id
    assert (after.runtime_type, after.containers["main"].runtime) == ("node20", "node20")
    assert await world.guest(session).stat("edited") is not None
    assert any("has changed: the container is replaced" in line for line in await world.lines(session))


async def test_a_container_is_replaced_to_have_more_memory(world: World) -> None:
    session = await world.launched(one_role())
    again = await world.relaunch(session, memory_mb=3000)
    assert await world.launch(again) is SessionStatus.RUNNING
    after = await world.read(session)
    assert (after.memory_mb, after.containers["main"].id != session.containers["main"].id) == (3000, True)
    # It keeps the memory in later launches, and so its container.
    assert await world.launch(await world.relaunch(session)) is SessionStatus.RUNNING
    assert (await world.read(session)).containers == after.containers
    with pytest.raises(InvalidInput, match="at most 4096 MiB"):
        await world.relaunch(session, memory_mb=5000)


async def test_a_missing_image_is_built(world: World) -> None:
    world.images.missing.add("python312")
    session = await world.launched(one_role())
    assert any(line.startswith("building the image of python312") for line in await world.lines(session))


async def test_an_image_that_cannot_be_built(world: World) -> None:
    world.images.missing.add("python312")
    world.images.build_error = SandboxError("no base", hint="build it")
    code, message, _ = await error_of(world, await world.create_project(one_role()))
    assert code == "image_missing"
    assert "no base" in message


async def test_a_container_that_ends_at_once(world: World) -> None:
    session = await world.create_project(one_role())

    def end_at_once(call: str) -> None:
        if call == "main.wait_ready":
            world.engine.container(session.session_id, "main").logs = "exec format error\n"
            world.engine.kill(session.session_id, "main", exit_code=126)

    world.engine.on_call = end_at_once
    code, message, _ = await error_of(world, session)
    assert code == "container_start_failed"
    assert "126" in message
    assert "exec format error" in message


async def test_containers_are_given_what_apps_need_to_export_telemetry(world: World) -> None:
    session = await world.launched(one_role())
    env = world.engine.container(session.session_id, "main").spec.env
    assert "token-of-ada" in env["OTEL_EXPORTER_OTLP_HEADERS"]
    assert env["OTEL_SERVICE_NAME"] == session.project_id
    assert env["SANDBOX_PREVIEW_URL"] == f"http://{session.session_id}.preview.test"


async def test_files_are_unpacked_once_and_edits_stay(world: World) -> None:
    session = await world.launched(one_role())
    guest = world.guest(session)
    await guest.write_file("main.py", b"edited")
    again = await world.relaunch(session)
    await world.launch(again)
    assert guest.files().read("main.py") == b"edited"
    assert world.engine.calls.count("main.put_tar") == 1
    assert any("are left as they are" in line for line in await world.lines(session))


async def test_a_replaced_project_is_unpacked_over_the_files(world: World) -> None:
    session = await world.launched(one_role())
    guest = world.guest(session)
    await guest.write_file("made", b"by the app")
    assert session.project_id is not None
    await world.projects.add(session.project_id, one_role(), {"main.py": "new"})
    await world.launch(await world.relaunch(session))
    assert guest.files().read("main.py") == b"new"
    assert guest.files().read("made") == b"by the app"


async def test_an_archive_that_cannot_be_unpacked(world: World) -> None:
    session = await world.create_project(one_role())
    world.guest(session).fail("put_tar", guest_error("file_refused", "no space"))
    code, message, _ = await error_of(world, session)
    assert code == "workspace_failed"
    assert "no space" in message


async def test_an_install_is_shown_line_by_line_and_gets_no_input(world: World) -> None:
    session = await world.create_project(one_role())
    world.guest(session).script("install", Script(b"out 1\nout 2\n", b"warning\n", reads=True))
    assert await world.launch(session) is SessionStatus.RUNNING
    lines = await world.lines(session)
    assert {"out 1", "out 2", "warning"} < set(lines)
    assert lines.index("out 1") < lines.index("out 2")


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        (Script(b"fine\n", b"ERROR: no matching distribution\n", 1), "dependency_install_failed", "no matching"),
        (Script(errors=b"write: No space left on device\n", exit_code=1), "disk_full", "No space left"),
        (Script(exit_code=137, out_of_memory=True), "out_of_memory", "out of memory"),
    ],
)
async def test_an_install_that_fails(world: World, script: Script, code: str, words: str) -> None:
    session = await world.create_project(one_role())
    world.guest(session).script("install", script)
    found, message, _ = await error_of(world, session)
    assert found == code
    assert words in message
    assert await state_of(world, session, StageName.DEPENDENCIES) == "failed"


async def test_an_install_with_a_lock_file_that_does_not_fit_is_repaired_once(world: World) -> None:
    plan = one_role(install="npm ci")
    session = await world.create_project(plan)
    guest = world.guest(session)
    guest.script(
        "install", Script(errors=b"npm error code EUSAGE\nnpm error Missing: x@1 from lock file\n", exit_code=1)
    )
    guest.script("reinstall", Script(b"added 1 package\n"))
    assert await world.launch(session) is SessionStatus.RUNNING
    lines = await world.lines(session)
    shown = ["$ npm ci", "npm error Missing: x@1 from lock file", "$ npm install", "added 1 package"]
    assert [line for line in lines if line in shown] == shown
    assert "the lock file does not fit the manifest (in this workspace only)" in lines
    guest.script("reinstall", Script(errors=b"npm error code EUSAGE\n", exit_code=1))
    code, message, _ = await error_of(world, await world.relaunch(session))
    assert code == "dependency_install_failed"
    assert message.startswith("main: `npm install` ended with exit code 1")


async def test_an_install_that_takes_too_long_is_killed(world: World) -> None:
    world.install_timeout_seconds = 1.0
    session = await world.create_project(one_role())
    guest = world.guest(session)
    guest.script("install", Script(b"still at it\n", exit_code=None))
    code, message, _ = await error_of(world, session)
    assert code == "dependency_install_timeout"
    assert "still at it" in message
    (process,) = await guest.processes()
    assert not process.running


async def test_the_install_of_one_role_that_fails_does_not_wait_for_the_others(world: World) -> None:
    session = await world.create_project(two_roles())
    world.guest(session, "frontend").script("install", Script(exit_code=None))
    world.guest(session, "backend").script("install", Script(exit_code=1))
    code, message, _ = await error_of(world, session)
    assert code == "dependency_install_failed"
    assert message.startswith("backend:")


async def test_ending_a_session_removes_what_its_launch_made(world: World) -> None:
    session = await world.launched(two_roles())
    kinds = {resource.kind for resource in await world.engine.remove_session(session.session_id)}
    assert kinds == set(ResourceKind)
    assert await world.engine.list_resources() == []
