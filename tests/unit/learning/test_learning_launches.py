"""A launch that failed teaches a lesson, and the next launch of the project has its remedy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from sandbox.domain.events import EventType
from sandbox.domain.plan import LaunchPlan
from sandbox.domain.session import Session, SessionStatus
from sandbox.errors import EngineError
from sandbox.learning.launches.plans import LaunchLessons
from sandbox.learning.refinement.service import Refiner
from sandbox.sessions.create_request import CreateRequest
from tests.fakes.processes import Script, app
from tests.fakes.world import CALLER, INSTALL, World, one_role

NO_YAML = Script(errors=b"ModuleNotFoundError: No module named 'yaml'\n", exit_code=1)
PLAN = one_role(framework="flask")
ADDED = "uv pip install pyyaml"


async def rows(world: World, query: str, **values: Any) -> list[Any]:
    async with world.db.read() as conn:
        return list(await conn.execute(text(query), values))


async def failed_once(world: World, plan: LaunchPlan = PLAN, script: Script = NO_YAML) -> Session:
    """A session whose only launch has failed."""
    session = await world.create_project(plan)
    world.guest(session).script("app", script)
    assert await world.launch(session) is SessionStatus.ERROR
    return await world.read(session)


async def launch_again(world: World, session: Session, script: Script | None = None) -> Session:
    """Relaunch the session with an app that works, or with this script."""
    world.guest(session).script("app", script or app(8000))
    await world.launch(await world.relaunch(session))
    return await world.read(session)


async def test_a_failure_leaves_evidence(world: World) -> None:
    session = await failed_once(world)
    (row,) = await rows(world, "SELECT * FROM launch_failures")
    assert (row.code, row.family, row.role, row.runtime) == ("app_exited", "python_module_missing", "main", "python312")
    assert (row.particulars, row.signature) == ({"module": "yaml"}, "ModuleNotFoundError: No module named <module>")
    assert (row.run_id, row.refined_by, row.remedied) == (session.run_id, None, False)


async def test_the_second_launch_has_the_remedy_and_says_so(world: World) -> None:
    session = await launch_again(world, await failed_once(world))
    assert session.status is SessionStatus.RUNNING
    assert session.plan is not None
    install = session.plan.roles["main"].install
    assert install is not None
    assert install.startswith(INSTALL)
    assert ADDED in install
    (applied,) = session.plan.lessons
    assert applied.remedy == "install_package"
    assert "installs pyyaml too, because an earlier launch failed with app_exited" in applied.change
    (event,) = [event for event in await world.events(session, EventType.LOG) if "lesson" in event.data]
    assert event.data["lesson"] == {"lesson_id": applied.lesson_id, "arm": "applied"}
    assert event.data["line"] == f"lesson {applied.lesson_id}: {applied.change}"
    (run,) = await rows(world, "SELECT * FROM agent_refinement_runs")
    assert (run.triggered_by, run.status, run.issues_analyzed, run.lessons_generated) == ("rework", "completed", 1, 1)
    (outcome,) = await rows(world, "SELECT * FROM agent_lesson_applications")
    assert (outcome.lesson_id, outcome.prevented_issue) == (applied.lesson_id, True)


async def test_the_remedy_stays_for_later_launches_of_the_project(world: World) -> None:
    session = await launch_again(world, await launch_again(world, await failed_once(world)))
    assert session.plan is not None
    assert ADDED in str(session.plan.roles["main"].install)
    assert len(await rows(world, "SELECT FROM agent_refinement_runs")) == 1


async def test_another_project_with_such_a_failure_needs_no_new_lesson(world: World) -> None:
    await launch_again(world, await failed_once(world))
    other = Script(errors=b"ModuleNotFoundError: No module named 'requests'\n", exit_code=1)
    session = await launch_again(world, await failed_once(world, script=other))
    assert session.plan is not None
    assert "uv pip install requests" in str(session.plan.roles["main"].install)
    (lesson,) = await rows(world, "SELECT lesson_id, occurrences FROM lesson_triggers")
    assert (lesson.lesson_id, lesson.occurrences) == (session.plan.lessons[0].lesson_id, 2)


async def test_two_failures_of_a_project_get_two_remedies(world: World) -> None:
    session = await failed_once(world)
    again = await launch_again(
        world, session, Script(errors=b"ModuleNotFoundError: No module named 'requests'\n", exit_code=1)
    )
    assert again.status is SessionStatus.ERROR
    third = await launch_again(world, session)
    assert third.plan is not None
    assert [lesson.change.split(" too")[0] for lesson in third.plan.lessons] == ["installs pyyaml", "installs requests"]
    assert third.plan.roles["main"].install == (
        f"{INSTALL} && uv venv -q --allow-existing --python 3.12 && {ADDED}"
        " && uv venv -q --allow-existing --python 3.12 && uv pip install requests"
    )


async def test_a_remedy_that_did_not_help_is_not_tried_again(world: World) -> None:
    session = await launch_again(world, await failed_once(world), NO_YAML)
    assert session.status is SessionStatus.ERROR
    (outcome,) = await rows(world, "SELECT * FROM agent_lesson_applications")
    assert outcome.prevented_issue is False
    third = await launch_again(world, session)
    assert third.plan is not None
    assert third.plan.lessons == ()


async def test_a_changed_plan_is_not_changed_further(world: World) -> None:
    session = await failed_once(world)
    assert session.project_id is not None
    await world.projects.add(session.project_id, one_role(framework="flask", install="pip install all"), {"a": "b"})
    again = await launch_again(world, session)
    assert again.plan is not None
    assert again.plan.roles["main"].install == "pip install all"


async def test_what_the_project_states_stays(world: World) -> None:
    """A plan without a framework has a stated start command, to which the port belongs."""
    world.health_timeout_seconds = 0.3
    session = await failed_once(world, one_role(), app(9000))
    again = await launch_again(world, session)
    assert again.plan is not None
    assert again.plan.lessons == ()


async def test_a_launch_without_the_lesson_that_succeeds_settles_the_failure(world: World) -> None:
    session = await failed_once(world)
    await world.execute("UPDATE sandbox_sessions SET lessons = FALSE")
    assert (await launch_again(world, session)).status is SessionStatus.RUNNING
    await world.execute("UPDATE sandbox_sessions SET lessons = TRUE")
    again = await launch_again(world, session)
    assert again.plan is not None
    assert again.plan.lessons == ()


@pytest.mark.parametrize("service", [True, False])
async def test_lessons_can_be_switched_off(world: World, service: bool) -> None:
    session = await failed_once(world)
    if service:
        world.lesson_options = replace(world.lesson_options, enabled=False)
    else:
        session, _ = await world.sessions.create(
            CALLER, CreateRequest(project_id=session.project_id, lessons=False), None
        )
        world.guest(session).script("install", Script())
        world.guest(session).script("app", app(8000))
        await world.launch(session)
        assert (await world.read(session)).plan == PLAN
        return
    again = await launch_again(world, session)
    assert again.plan == PLAN
    assert await rows(world, "SELECT FROM lesson_assignments") == []


async def test_the_lot_withholds_a_lesson_and_both_arms_are_recorded(world: World) -> None:
    session = await failed_once(world)
    world.lesson_options = replace(world.lesson_options, withheld_percent=100)
    withheld = await launch_again(world, session, NO_YAML)
    assert withheld.plan == PLAN
    assert any("withheld by lot" in line for line in await world.lines(withheld))
    world.lesson_options = replace(world.lesson_options, withheld_percent=0)
    await launch_again(world, session)
    arms = await rows(world, "SELECT arm, failed, channel FROM lesson_assignments ORDER BY assigned_at")
    assert [tuple(arm) for arm in arms] == [("withheld", True, "launch"), ("applied", False, "launch")]
    assert len(await rows(world, "SELECT FROM agent_lesson_applications")) == 1


async def test_a_repeated_plan_stage_keeps_the_lot(world: World) -> None:
    session = await failed_once(world)
    world.lesson_options = replace(world.lesson_options, withheld_percent=50)
    again = await world.claim(await world.relaunch(session))
    lessons = LaunchLessons(world.db, world.lesson_options, Refiner(world.db).rework)
    first = await lessons.adjust(again, PLAN)
    for _ in range(10):
        assert await lessons.adjust(again, PLAN) == first
    assert len(await rows(world, "SELECT FROM agent_lesson_applications")) == len(first.plan.lessons)


async def test_failures_of_the_service_are_no_evidence(world: World) -> None:
    session = await world.create_project(PLAN)
    world.engine.fail("ensure_container", EngineError("no"), times=8)
    assert await world.launch(session) is SessionStatus.ERROR
    assert await rows(world, "SELECT FROM launch_failures") == []


async def test_agents_get_a_lesson_of_their_own(world: World) -> None:
    await failed_once(world)
    await world.execute("UPDATE launch_failures SET agents = '[\"Backend\"]'")
    await Refiner(world.db).run("hitl")
    found = await rows(world, "SELECT agent_name, remedy FROM lesson_triggers ORDER BY agent_name")
    assert [tuple(row) for row in found] == [("Backend", None), ("Sandbox Launch Pipeline", "install_package")]


async def test_a_lesson_that_cannot_be_written_does_not_fail_the_launch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await failed_once(world)
    monkeypatch.setattr("sandbox.learning.refinement.service.draft", lambda *_: 1 / 0)
    assert (await launch_again(world, session)).status is SessionStatus.RUNNING
    assert [row.status for row in await rows(world, "SELECT status FROM agent_refinement_runs")] == ["failed"]


async def test_a_remedy_that_makes_a_command_too_long_is_left_out(world: World) -> None:
    again = await launch_again(world, await failed_once(world, one_role(framework="flask", install="x" * 3990)))
    assert again.status is SessionStatus.RUNNING
    assert again.plan is not None
    assert again.plan.lessons == ()


async def test_a_longer_deadline_of_the_plan_is_kept_to(world: World) -> None:
    world.health_timeout_seconds = 0.2
    session = await world.create_project(one_role(health_timeout_seconds=60))
    world.guest(session).script("app", app(8000, opens_after=0.5))
    assert await world.launch(session) is SessionStatus.RUNNING
    session = await world.create_project(one_role(install_timeout_seconds=1))
    world.guest(session).script("install", Script(exit_code=None))
    assert await world.launch(session) is SessionStatus.ERROR
    error = (await world.read(session)).error
    assert error is not None
    assert (error.code, "after 1 s" in error.message) == ("dependency_install_timeout", True)
