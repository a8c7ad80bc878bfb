"""The pipeline from the outside: order, checkpoints, retries, failures and fencing, on the fake engine."""

from __future__ import annotations

import asyncio
import logging

import pytest

from sandbox.domain.events import EventType
from sandbox.domain.evidence import FailureCause, FailureEvidence
from sandbox.domain.session import Session, SessionStatus
from sandbox.engine.base import ResourceKind
from sandbox.errors import EngineError, GuestError, LostOwnership, SandboxError, StageFailed
from tests.fakes.errors import guest_error
from tests.fakes.processes import Script
from tests.fakes.world import CALLER, INSTALL, OWNER, START, QuickAsyncio, World, eventually, one_role, two_roles

ALL = ["plan", "network", "containers", "workspace", "dependencies", "services", "health", "preview"]
BLANK = ALL[:4]


async def failed(world: World, session: Session) -> Session:
    """Launch a session that is to fail, and check what every failure has in common."""
    assert await world.launch(session) is SessionStatus.ERROR
    after = await world.read(session)
    assert after.status is SessionStatus.ERROR
    assert after.work is None
    assert after.error is not None
    (problem,) = await world.events(session, EventType.PROBLEM)
    assert problem.data["code"] == after.error.code
    (end,) = await world.events(session, EventType.END)
    assert end.data["status"] == "error"
    assert (await world.stages_of(session))[-1] == (after.error.stage, "failed")
    return after


async def test_a_project_is_launched_in_order(world: World) -> None:
    session = await world.create_project(two_roles())
    assert await world.launch(session) is SessionStatus.RUNNING
    assert await world.stages_of(session) == [(stage, state) for stage in ALL for state in ("started", "completed")]
    await world.assert_whole(session, ALL)
    after = await world.read(session)
    assert (after.status, after.work, after.error) == (SessionStatus.RUNNING, None, None)
    assert (after.preview_port, after.backend_port, after.pipeline_stage) == (3000, 8000, "preview")
    assert {role: info.status for role, info in after.containers.items()} == dict.fromkeys(
        ("frontend", "backend"), "running"
    )
    kinds = [resource.kind for resource in await world.engine.list_resources()]
    assert sorted(kinds) == sorted([ResourceKind.NETWORK] + [ResourceKind.CONTAINER, ResourceKind.VOLUME] * 2)
    (preview,) = await world.events(session, EventType.PREVIEW)
    assert preview.data == {"url": f"http://{session.session_id}.preview.test/", "port": 3000, "role": "frontend"}
    statuses = [
        (event.data["previous"], event.data["status"]) for event in await world.events(session, EventType.STATUS)
    ]
    assert statuses == [(None, "creating"), ("creating", "running")]


async def test_the_events_of_a_stage_say_its_position_and_duration(world: World) -> None:
    session = await world.launched(one_role())
    for event in await world.events(session, EventType.STAGE):
        assert event.data["total"] == len(ALL)
        assert ALL[event.data["index"] - 1] == event.data["stage"]
        assert ("duration_ms" in event.data) == (event.data["state"] != "started")


async def test_the_pipeline_log_has_every_line_of_the_launch(world: World) -> None:
    session = await world.launched(one_role())
    log = await world.sessions.pipeline_log(CALLER, session.session_id)
    for line in await world.lines(session):
        assert line in log
    assert "installed main" in log


async def test_a_blank_session_has_four_stages_and_is_ready(world: World) -> None:
    session = await world.create_blank()
    assert await world.launch(session) is SessionStatus.READY
    await world.assert_whole(session, BLANK)
    states = dict(await world.stages_of(session))
    assert states == {"plan": "completed", "network": "skipped", "containers": "completed", "workspace": "skipped"}
    assert (await world.read(session)).containers.keys() == {"main"}


async def test_a_project_that_starts_nothing_is_ready(world: World) -> None:
    session = await world.create_project(one_role(start=None, port=None, install=None))
    assert await world.launch(session) is SessionStatus.READY
    states = dict(await world.stages_of(session))
    assert [states[stage] for stage in ("dependencies", "services", "health", "preview")] == ["skipped"] * 4


async def test_a_run_that_is_over_is_not_launched_again_and_a_relaunch_is_a_new_run(world: World) -> None:
    session = await world.launched(one_role())
    again = await world.relaunch(session)
    assert again.run_id != session.run_id
    assert await world.launch(again) is SessionStatus.RUNNING
    guest = world.guest(session)
    assert [name.partition("-")[0] for name in guest.started] == ["install", "app"] * 2
    assert len(set(guest.started)) == 4
    assert guest.running_process("app").name == guest.started[-1]
    assert [event.data["status"] for event in await world.events(session, EventType.END)] == ["running"] * 2


@pytest.mark.parametrize("error", [EngineError("busy"), GuestError("hung up", code="agent_unreachable")])
async def test_a_passing_error_is_retried_with_growing_pauses(
    world: World, retries: QuickAsyncio, error: EngineError | GuestError
) -> None:
    session = await world.create_project(one_role())
    if isinstance(error, GuestError):
        world.guest(session).fail("put_tar", error, times=3)
    else:
        world.engine.fail("ensure_container", error, times=3)
    assert await world.launch(session) is SessionStatus.RUNNING
    assert retries.slept == [1.0, 2.0, 4.0]
    await world.assert_whole(session, ALL)


@pytest.mark.parametrize(
    ("call", "error", "code", "stage"),
    [
        ("ensure_network", EngineError("no", code="subnet_pool_exhausted"), "network_failed", "network"),
        ("ensure_container", EngineError("no"), "engine_error", "containers"),
        ("ensure_container", EngineError("no", code="engine_unreachable"), "engine_error", "containers"),
        ("ensure_container", EngineError("no", code="image_missing"), "image_missing", "containers"),
        ("ensure_container", EngineError("no", code="disk_full"), "disk_full", "containers"),
        ("ensure_network", EngineError("no", code="disk_full"), "disk_full", "network"),
        ("backend.put_tar", guest_error("disk_full", "no"), "disk_full", "workspace"),
        ("backend.wait_ready", guest_error("agent_unreachable", "no"), "agent_unreachable", "containers"),
        ("backend.put_tar", guest_error("agent_unreachable", "no"), "agent_unreachable", "workspace"),
        ("backend.start", guest_error("agent_refused", "no"), "agent_refused", "dependencies"),
        ("backend.forward_ports", guest_error("agent_refused", "no"), "agent_refused", "services"),
    ],
)
async def test_an_error_that_does_not_pass_ends_the_launch_with_its_code(
    world: World, call: str, error: SandboxError, code: str, stage: str
) -> None:
    session = await world.create_project(two_roles())
    role, _, method = call.rpartition(".")
    if isinstance(error, GuestError):
        # A guest agent that stays silent has its container made anew a few times.
        world.guest(session, role).fail(method, error, times=100 if method == "wait_ready" else 4)
    else:
        assert isinstance(error, EngineError)
        # Both roles' containers are made at once.
        world.engine.fail(method, error, times=8)
    after = await failed(world, session)
    assert after.error is not None
    assert (after.error.code, after.error.stage) == (code, stage)
    assert after.error.message == "no" or "does not answer" in after.error.message


async def test_the_particulars_of_a_failure_are_kept_with_its_run(world: World) -> None:
    details = FailureEvidence(role="main", cause=FailureCause.MISSING_MODULE, module="flask").to_json()
    session = await world.create_project(StageFailed("plan_invalid", "it is wrong", "correct it", details=details))
    after = await failed(world, session)
    assert after.error is not None
    assert after.error.details == details
    (problem,) = await world.events(session, EventType.PROBLEM)
    assert problem.data["details"] == details
    relaunched = await world.relaunch(after)
    assert relaunched.error is None


async def test_a_stage_that_fails_is_not_retried(world: World, retries: QuickAsyncio) -> None:
    session = await world.create_project(StageFailed("plan_invalid", "the plan is wrong", "correct it"))
    after = await failed(world, session)
    assert after.error is not None
    assert after.error.to_json() == {
        "code": "plan_invalid", "message": "the plan is wrong", "hint": "correct it", "stage": "plan",
        "details": None,
    }  # fmt: skip
    assert await world.stages_of(session) == [("plan", "started"), ("plan", "failed")]
    assert retries.slept == []


async def test_any_other_of_our_errors_ends_the_launch_at_once(world: World, retries: QuickAsyncio) -> None:
    session = await world.create_project(SandboxError("gone", code="project_not_found", hint="upload it"))
    after = await failed(world, session)
    assert after.error is not None
    assert (after.error.code, after.error.message) == ("project_not_found", "gone")
    assert retries.slept == []


async def test_a_programming_mistake_is_an_internal_error_and_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    session = await world.create_project(one_role())

    def mistake(call: str) -> None:
        if call == "main.put_tar":
            raise ZeroDivisionError

    world.engine.on_call = mistake
    with caplog.at_level(logging.ERROR):
        after = await failed(world, session)
    assert after.error is not None
    assert (after.error.code, after.error.stage) == ("internal_error", "workspace")
    assert "ZeroDivisionError" in after.error.message
    assert "ZeroDivisionError" in caplog.text


async def test_a_run_that_belongs_to_another_replica_writes_nothing_more(world: World) -> None:
    session = await world.create_project(one_role())
    world.guest(session).script("install", Script(b"installing\n", delay=600))
    run = asyncio.create_task(world.launch(session))

    async def installing() -> bool:
        return "installing" in await world.lines(session)

    await eventually(installing)
    await world.execute("UPDATE sandbox_sessions SET owner = :owner", owner=OWNER + 1)
    before = await world.events(session)
    world.guest(session).running_process("install").write(b"more\n")
    with pytest.raises(LostOwnership):
        await run
    assert await world.events(session) == before
    # The process in the container goes on for the next owner.
    world.guest(session).running_process("install").end(0)
    assert await world.launch(session) is SessionStatus.RUNNING
    await world.assert_whole(session, ALL)
    assert [line for line in await world.lines(session) if line in ("installing", "more")] == ["installing", "more"]


async def test_a_run_that_is_overtaken_by_the_session_s_end_writes_nothing_more(world: World) -> None:
    session = await world.create_project(one_role())
    claimed = await world.claim(session)
    await world.terminate(session)
    before = await world.events(session)
    with pytest.raises(LostOwnership):
        await world.pipeline().run(claimed, OWNER)
    assert await world.events(session) == before
    assert world.engine.calls == []


async def test_commands_see_their_role_s_environment(world: World) -> None:
    session = await world.create_project(two_roles(), env={"COLOUR": "blue"})
    await world.launch(session)
    guest = world.guest(session, "frontend")
    for env in guest.environments.values():
        assert (env["PORT"], env["BACKEND_URL"], env["COLOUR"]) == ("3000", "http://backend:8000", "blue")
        assert (env["SANDBOX_ROLE"], env["SANDBOX_SESSION_ID"]) == ("frontend", str(session.session_id))
    assert f"$ {INSTALL}" in await world.lines(session)
    assert f"$ {START}" in await world.lines(session)
