"""The comparison of sessions with resources on the engine, and the error of a session that has lost a container."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from sandbox.domain.egress import Egress
from sandbox.domain.failures import FAILURE_STAGES, LOSSES, LOSSES_BY_APP, RECOVERABLE_FAILURES
from sandbox.domain.session import ContainerInfo, Session, SessionError, SessionStatus, Work
from sandbox.engine.base import ContainerState, Resource, ResourceKind
from sandbox.engine.labels import container_name, network_name, shared_network_name
from sandbox.sessions.recovery.compare import Action, compare
from sandbox.sessions.watcher import container_loss
from tests.fakes.world import one_role, two_roles

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ROLES = ("backend", "frontend")


def make_session(**changes: Any) -> Session:
    session = Session(
        session_id=uuid4(),
        user_id="u",
        project_id="p",
        project_digest="d",
        status=SessionStatus.RUNNING,
        runtime_type="python312",
        containers={role: ContainerInfo(f"id-{role}", "10.0.0.1", "python312", "running") for role in ROLES},
        preview_port=8000,
        backend_port=8000,
        pipeline_stage="preview",
        pipeline_run_id="r",
        run_id=uuid4(),
        created_at=NOW,
        last_active=NOW,
        terminated_at=None,
        expires_at=None,
        idle_timeout_seconds=0,
        max_lifetime_seconds=0,
        error=None,
        work=None,
    )
    return replace(session, **changes)


def in_error(code: str) -> Session:
    return make_session(status=SessionStatus.ERROR, error=SessionError(code, "m", "h", None))


def resources_of(session: Session, status: str = "running") -> list[Resource]:
    """All resources of the session on the engine."""
    session_id = session.session_id
    made = [Resource(ResourceKind.NETWORK, network_name(session_id), session_id, None, NOW)]
    for role, info in session.containers.items():
        name = container_name(session_id, role)
        made.append(Resource(ResourceKind.CONTAINER, name, session_id, role, NOW, status, info.id))
        made.append(Resource(ResourceKind.VOLUME, name, session_id, role, NOW))
    return made


def without(kind: ResourceKind, role: str) -> Callable[[Resource], bool]:
    return lambda resource: not (resource.kind is kind and resource.role == role)


def only(session: Session, resources: list[Resource]) -> tuple[Action, tuple[str, ...]]:
    (finding,) = compare([session], resources)
    assert finding.session is session
    assert finding.reason
    return finding.action, finding.differs


def test_a_session_without_differences_needs_no_action() -> None:
    session = make_session()
    assert only(session, resources_of(session)) == (Action.NONE, ())


def test_stopped_containers_are_started() -> None:
    session = make_session()
    assert only(session, resources_of(session, "exited")) == (Action.RESTART, ROLES)


def test_missing_containers_are_recreated_on_their_volumes() -> None:
    session = make_session()
    found = [r for r in resources_of(session, "exited") if without(ResourceKind.CONTAINER, "backend")(r)]
    assert only(session, found) == (Action.RECREATE, ("backend",))


def test_a_missing_volume_is_a_loss_even_if_the_container_runs() -> None:
    session = make_session()
    found = [r for r in resources_of(session) if without(ResourceKind.VOLUME, "frontend")(r)]
    assert only(session, found) == (Action.MARK_LOST, ("frontend",))


def test_containers_that_are_cut_off_are_attached_by_a_launch() -> None:
    session = make_session()
    found = [replace(r, connected=r.role != "backend") for r in resources_of(session)]
    assert only(session, found) == (Action.RESTART, ("backend",))


def test_a_network_that_is_gone_cuts_off_all_of_a_sessions_containers() -> None:
    session = make_session(plan=two_roles())
    found = [r for r in resources_of(session) if r.kind is not ResourceKind.NETWORK]
    assert only(session, found) == (Action.RESTART, ROLES)
    # A session of one container has no network of its own, unless its egress is restricted.
    container = {"main": ContainerInfo("id-main", "10.0.0.1", "python312", "running")}
    restricted = make_session(containers=container, plan=one_role(), egress=Egress("none"))
    found = [r for r in resources_of(restricted) if r.kind is not ResourceKind.NETWORK]
    assert only(restricted, found) == (Action.RESTART, ("main",))
    alone = make_session(containers=container, plan=one_role())
    found = [r for r in resources_of(alone) if r.kind is not ResourceKind.NETWORK]
    assert only(alone, found) == (Action.NONE, ())


def test_other_containers_of_the_same_name_are_adopted() -> None:
    session = make_session()
    found = [replace(r, id="other") if r.role == "backend" else r for r in resources_of(session)]
    assert only(session, found) == (Action.ADOPT, ("backend",))


@pytest.mark.parametrize("code", sorted(LOSSES))
def test_a_lost_session_whose_containers_run_again_has_its_app_started(code: str) -> None:
    session = in_error(code)
    assert only(session, resources_of(session)) == (Action.RESTART, ROLES)


@pytest.mark.parametrize(("code", "stage"), [("app_exited", "health"), ("out_of_memory", "dependencies")])
def test_a_failed_launch_is_not_a_lost_session(code: str, stage: str) -> None:
    session = make_session(status=SessionStatus.ERROR, error=SessionError(code, "m", "h", stage))
    assert only(session, resources_of(session))[0] is Action.NONE


@pytest.mark.parametrize("code", sorted(RECOVERABLE_FAILURES))
def test_a_launch_that_failed_for_a_cause_outside_of_the_project_is_repeated(code: str) -> None:
    error = SessionError(code, "m", "h", FAILURE_STAGES[code] or "dependencies")
    session = make_session(status=SessionStatus.ERROR, error=error)
    assert only(session, resources_of(session)) == (Action.RESTART, ROLES)
    # One that failed before it had containers.
    assert only(replace(session, containers={}), []) == (Action.RESTART, ())


@pytest.mark.parametrize("code", sorted(FAILURE_STAGES.keys() - RECOVERABLE_FAILURES))
def test_a_launch_that_its_owner_must_correct_is_not_repeated(code: str) -> None:
    error = SessionError(code, "m", "correct it", "health")
    session = make_session(status=SessionStatus.ERROR, error=error)
    (finding,) = compare([session], resources_of(session))
    assert finding.action is Action.NONE
    assert code in finding.reason
    assert "its owner has to act" in finding.reason


@pytest.mark.parametrize("code", ["dependency_install_failed", "workspace_lost"])
def test_a_failure_that_the_owner_must_correct_needs_no_action(code: str) -> None:
    assert only(in_error(code), [])[0] is Action.NONE


def test_every_recoverable_failure_is_a_failure_code() -> None:
    assert FAILURE_STAGES.keys() >= RECOVERABLE_FAILURES
    assert LOSSES >= LOSSES_BY_APP


@pytest.mark.parametrize("work", list(Work))
def test_a_session_with_unfinished_work_needs_no_action(work: Work) -> None:
    assert only(make_session(work=work), [])[0] is Action.NONE


def test_each_stray_is_a_finding_and_the_shared_network_is_not_a_stray() -> None:
    alive, gone = make_session(), make_session()
    shared = Resource(ResourceKind.NETWORK, shared_network_name(UUID(int=1)), None, None, NOW)
    nameless = Resource(ResourceKind.VOLUME, "v", None, None, NOW)
    findings = compare([alive], [*resources_of(alive), *resources_of(gone), shared, nameless])
    strays = [finding for finding in findings if finding.session is None]
    assert {finding.action for finding in strays} == {Action.REMOVE}
    assert sorted(r.name for finding in strays for r in finding.found) == sorted(
        [*(r.name for r in resources_of(gone)), "v"]
    )
    assert findings[0].action is Action.NONE


def state(status: str, exit_code: int | None = None, *, out_of_memory: bool = False) -> ContainerState:
    return ContainerState("id", "name", status, None, exit_code, out_of_memory, None, None, "main")


@pytest.mark.parametrize(
    ("found", "code", "words"),
    [
        (None, "container_gone", "gone"),
        (state("exited", 3), "container_exited", "exited 3"),
        (state("exited", 137), "container_exited", "exited 137"),
        (state("exited", 137, out_of_memory=True), "out_of_memory", "memory"),
        # A command in the container was killed for memory earlier; the container exited for another reason.
        (state("exited", 0, out_of_memory=True), "container_exited", "exited 0"),
        (state("created"), "container_exited", "created"),
        (state("paused"), "container_paused", "paused"),
        (replace(state("running"), connected=False), "network_lost", "cut off"),
    ],
)
def test_the_error_of_a_lost_container(found: ContainerState | None, code: str, words: str) -> None:
    error = container_loss(uuid4(), {"main": found})
    assert error is not None
    assert error.code == code
    assert words in error.message


@pytest.mark.parametrize("status", ["running", "restarting"])
def test_running_containers_are_not_a_loss(status: str) -> None:
    assert container_loss(uuid4(), {"main": state(status)}) is None
