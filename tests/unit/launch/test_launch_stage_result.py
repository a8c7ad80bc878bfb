"""What a stage's result changes in a session and in its row."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from sandbox.domain.plan import LaunchPlan, RolePlan
from sandbox.domain.session import ContainerInfo, Session, SessionStatus
from sandbox.launch.stage import SessionPorts, StageResult
from sandbox.launch.store import columns

ID = UUID("5f0c3b0a-1111-2222-3333-444455556666")
PLAN = LaunchPlan(roles={"web": RolePlan(runtime="node20", start="npm start", port=3000)})
CONTAINERS = {"web": ContainerInfo("c1", "10.0.0.2", "node20", "running")}


def session() -> Session:
    now = datetime.now(UTC)
    return Session(
        session_id=ID, user_id="ada", project_id="shop", project_digest="d", status=SessionStatus.CREATING,
        runtime_type="python312", containers={}, preview_port=8000, backend_port=8000, pipeline_stage=None,
        pipeline_run_id="run", run_id=ID, created_at=now, last_active=now, terminated_at=None, expires_at=None,
        idle_timeout_seconds=None, max_lifetime_seconds=None, error=None, work=None,
    )  # fmt: skip


def test_an_empty_result_changes_nothing() -> None:
    before = session()
    assert StageResult().applied_to(before) == before
    assert columns(StageResult()) == {}


def test_a_plan_sets_the_runtime_too() -> None:
    result = StageResult(plan=PLAN)
    after = result.applied_to(session())
    assert (after.plan, after.runtime_type) == (PLAN, "node20")
    assert columns(result) == {"plan": PLAN.model_dump(mode="json"), "runtime_type": "node20"}


def test_ports_can_be_set_to_null() -> None:
    """A plan with no port replaces the ports of the plan before it."""
    result = StageResult(ports=SessionPorts(preview=None, backend=None))
    after = result.applied_to(session())
    assert (after.preview_port, after.backend_port) == (None, None)
    assert columns(result) == {"preview_port": None, "backend_port": None}


def test_containers_are_written_as_json() -> None:
    result = StageResult(containers=CONTAINERS)
    assert result.applied_to(session()).containers == CONTAINERS
    assert columns(result) == {"containers": {"web": CONTAINERS["web"].to_json()}}
