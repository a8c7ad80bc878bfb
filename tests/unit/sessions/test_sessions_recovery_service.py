"""Recovery against the fake engine: each finding is made, done, and gone at the next comparison."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from sandbox.db.connection import Database
from sandbox.domain.session import Session, SessionStatus
from sandbox.errors import DatabaseUnavailable, EngineError, StageFailed
from sandbox.sessions.recovery.compare import Action
from tests.fakes.world import World, one_role, two_roles

OLD = datetime.now(UTC) - timedelta(hours=1)


async def alerts(world: World) -> list[str]:
    async with world.db.read() as conn:
        rows = await conn.exec_driver_sql("SELECT title FROM alerts WHERE status = 'active' ORDER BY alert_id")
        return list(rows.scalars())


async def recovered(world: World, session: Session) -> tuple[Action, str]:
    """Recover one session; what was done, and with what outcome."""
    (outcome,) = await world.recovery().recover([session.session_id], dry_run=False)
    return outcome.finding.action, outcome.outcome


async def finding(world: World, session: Session) -> Action:
    (found,) = await world.recovery().findings([session.session_id])
    return found.action


async def test_what_is_as_recorded_needs_nothing(world: World) -> None:
    session = await world.launched(one_role())
    before = await world.events(session)
    assert await recovered(world, session) == (Action.NONE, "done")
    assert await world.events(session) == before


async def test_stopped_containers_are_launched_again_with_their_files(world: World) -> None:
    session = await world.launched(one_role())
    await world.guest(session).write_file("edited", b"by the user")
    world.engine.kill(session.session_id, "main")
    assert await recovered(world, session) == (Action.RESTART, "done")
    assert await world.launch(session) is SessionStatus.RUNNING
    assert await world.guest(session).stat("edited") is not None
    assert await finding(world, session) is Action.NONE
    assert await alerts(world) == []


async def test_a_network_that_is_gone_is_made_anew_with_the_containers_attached(world: World) -> None:
    session = await world.launched(two_roles())
    world.engine.remove_network(session.session_id, silent=True)
    assert await recovered(world, session) == (Action.RESTART, "done")
    assert await world.launch(session) is SessionStatus.RUNNING
    assert await finding(world, session) is Action.NONE
    after = await world.read(session)
    assert {role: info.id for role, info in after.containers.items()} == {
        role: info.id for role, info in session.containers.items()
    }


async def test_missing_containers_are_made_anew_on_their_volumes(world: World) -> None:
    session = await world.launched(two_roles())
    await world.guest(session, "backend").write_file("edited", b"by the user")
    world.engine.destroy(session.session_id, "backend")
    assert await recovered(world, session) == (Action.RECREATE, "done")
    assert await world.launch(session) is SessionStatus.RUNNING
    assert await world.guest(session, "backend").stat("edited") is not None
    after = await world.read(session)
    assert after.containers["backend"].id != session.containers["backend"].id
    assert after.containers["frontend"].id == session.containers["frontend"].id
    (title,) = await alerts(world)
    assert str(session.session_id) in title


async def test_files_that_are_lost_are_an_error_and_a_relaunch_begins_from_the_source(world: World) -> None:
    session = await world.launched(one_role())
    world.engine.destroy(session.session_id, "main")
    world.engine.lose_volume(session.session_id, "main")
    assert await recovered(world, session) == (Action.MARK_LOST, "done")
    after = await world.read(session)
    assert (after.status, after.work) == (SessionStatus.ERROR, None)
    assert after.error is not None
    assert after.error.code == "workspace_lost"
    assert after.containers["main"].status == "gone"
    assert len(await alerts(world)) == 1
    assert await finding(world, session) is Action.NONE
    assert await world.launch(await world.relaunch(session)) is SessionStatus.RUNNING
    assert await world.guest(session).stat("main.py") is not None


async def test_other_containers_than_recorded_are_adopted(world: World) -> None:
    session = await world.launched(one_role())
    new = world.engine.replace(session.session_id, "main")
    assert await recovered(world, session) == (Action.ADOPT, "done")
    after = await world.read(session)
    assert (after.status, after.containers["main"].id) == (SessionStatus.RUNNING, new)
    assert await finding(world, session) is Action.NONE


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_launch_that_failed_because_of_the_engine_is_repeated(world: World, dry_run: bool) -> None:
    session = await world.create_project(one_role())
    world.engine.fail("ensure_container", EngineError("no"), times=4)
    assert await world.launch(session) is SessionStatus.ERROR
    (outcome,) = await world.recovery().recover([session.session_id], dry_run=dry_run)
    assert (outcome.finding.action, outcome.outcome) == (Action.RESTART, "planned" if dry_run else "done")
    assert "engine_error" in outcome.finding.reason
    if not dry_run:
        assert await world.launch(session) is SessionStatus.RUNNING


async def test_a_session_in_error_is_never_as_recorded(world: World) -> None:
    session = await world.create_project(StageFailed("plan_invalid", "wrong", "correct it"))
    assert await world.launch(session) is SessionStatus.ERROR
    (outcome,) = await world.recovery().recover(None, dry_run=False)
    assert (outcome.finding.action, outcome.outcome) == (Action.NONE, "skipped")
    assert "plan_invalid" in outcome.finding.reason
    assert "correct it" in outcome.finding.reason


async def test_a_dry_run_changes_nothing(world: World) -> None:
    session = await world.launched(one_role())
    world.engine.kill(session.session_id, "main")
    stray = world.engine.add_volume(uuid4(), "main")
    outcomes = await world.recovery().recover(None, dry_run=True)
    assert {outcome.outcome for outcome in outcomes} == {"planned"}
    assert {outcome.finding.action for outcome in outcomes} == {Action.RESTART, Action.REMOVE}
    assert (await world.read(session)).work is None
    assert stray in {resource.name for resource in await world.engine.list_resources()}


async def test_a_session_that_changed_since_the_comparison_is_skipped(world: World) -> None:
    session = await world.launched(one_role())
    world.engine.kill(session.session_id, "main")
    recovery = world.recovery()
    (found,) = await recovery.findings([session.session_id])
    assert found.action is Action.RESTART
    await world.terminate(session)
    assert await recovered(world, session) == (Action.NONE, "done")


async def test_one_that_fails_does_not_stop_the_others(world: World) -> None:
    strays = {world.engine.add_volume(uuid4(), "main") for _ in range(2)}
    world.engine.fail("remove", EngineError("busy"))
    outcomes = await world.recovery().recover(None, dry_run=False)
    assert sorted(outcome.outcome for outcome in outcomes) == ["done", "failed"]
    assert [outcome.error for outcome in outcomes if outcome.outcome == "failed"] == ["busy"]
    left = {resource.name for resource in await world.engine.list_resources()}
    assert len(left & strays) == 1


async def test_the_sweep_removes_only_strays_that_are_old_enough(world: World) -> None:
    session = await world.launched(one_role())
    old = world.engine.add_volume(uuid4(), "main", created_at=OLD)
    young = world.engine.add_volume(uuid4(), "main")
    assert await world.recovery().sweep() == 1
    names = {resource.name for resource in await world.engine.list_resources()}
    assert old not in names
    assert young in names
    assert await finding(world, session) is Action.NONE


async def test_what_a_terminated_session_left_is_a_stray(world: World) -> None:
    session = await world.launched(one_role())
    async with world.reconciling():
        await world.terminate(session)
        await world.until_status(session, SessionStatus.TERMINATED)
    left = world.engine.add_volume(session.session_id, "main", created_at=OLD)
    assert await world.recovery().sweep() == 1
    assert left not in {resource.name for resource in await world.engine.list_resources()}


@pytest.mark.parametrize("call", ["findings", "sweep"])
async def test_an_engine_that_is_away_is_not_an_empty_one(world: World, call: str) -> None:
    session = await world.launched(one_role())
    world.engine.go_away()
    with pytest.raises(EngineError):
        await getattr(world.recovery(), call)()
    assert (await world.read(session)).status is SessionStatus.RUNNING


async def test_a_database_that_is_away_is_not_an_empty_one(world: World, make_away: Callable[[], Database]) -> None:
    stray = world.engine.add_volume(uuid4(), "main", created_at=OLD)
    other = World(make_away())
    other.engine = world.engine
    with pytest.raises(DatabaseUnavailable):
        await other.recovery().sweep()
    assert stray in {resource.name for resource in await world.engine.list_resources()}
    await other.db.close()


@pytest.fixture
def make_away() -> Callable[[], Database]:
    """A database that nothing serves."""
    return lambda: Database("postgresql://nobody@127.0.0.1:9/nothing")
