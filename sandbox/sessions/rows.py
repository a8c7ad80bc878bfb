"""Rows of `sandbox_sessions` as sessions."""

from __future__ import annotations

from typing import Any

from sandbox.db.driver import to_utc
from sandbox.domain.egress import PUBLIC, parse_egress
from sandbox.domain.observations import Observations
from sandbox.domain.plan import stored_plan
from sandbox.domain.session import ContainerInfo, Session, SessionError, SessionStatus, Waiting, Work
from sandbox.domain.variables import SessionValues

#: The columns that `to_session` reads.
SESSION_COLUMNS = """
    session_id, user_id, project_id, project_digest, status, runtime_type, containers, preview_port, backend_port,
    pipeline_stage, pipeline_run_id, run_id, created_at, last_active, terminated_at, idle_timeout_seconds,
    max_lifetime_seconds, error, work, env, sealed, agents, plan, requested_plan, egress, lessons, waiting, memory_mb,
    (SELECT evidence FROM session_runs r WHERE r.run_id = sandbox_sessions.run_id) AS evidence,
    (SELECT observations FROM session_runs r WHERE r.run_id = sandbox_sessions.run_id) AS observations,
    CASE WHEN status = 'terminated' THEN NULL ELSE
        LEAST(expires_at, last_active + make_interval(secs => NULLIF(idle_timeout_seconds, 0))) END AS expires_at
"""


def to_session(row: Any) -> Session:
    """The session of a row that has `SESSION_COLUMNS`."""
    return Session(
        session_id=row.session_id,
        user_id=row.user_id,
        project_id=row.project_id,
        project_digest=row.project_digest,
        status=SessionStatus(row.status),
        runtime_type=row.runtime_type,
        containers={role: ContainerInfo(**info) for role, info in row.containers.items()},
        preview_port=row.preview_port,
        backend_port=row.backend_port,
        pipeline_stage=row.pipeline_stage,
        pipeline_run_id=row.pipeline_run_id,
        run_id=row.run_id,
        created_at=to_utc(row.created_at),
        last_active=to_utc(row.last_active),
        terminated_at=to_utc(row.terminated_at) if row.terminated_at else None,
        expires_at=to_utc(row.expires_at) if row.expires_at else None,
        idle_timeout_seconds=row.idle_timeout_seconds,
        max_lifetime_seconds=row.max_lifetime_seconds,
        error=SessionError(**(row.error | {"details": _details(row)})) if row.error else None,
        work=Work(row.work) if row.work else None,
        sealed=bytes(row.sealed) if row.sealed is not None else None,
        # In rows of an earlier release that were not encrypted yet.
        values=SessionValues(row.env),
        agents=tuple(row.agents),
        egress=parse_egress(row.egress) if row.egress is not None else PUBLIC,
        lessons=row.lessons,
        memory_mb=row.memory_mb,
        plan=stored_plan(row.plan) if row.plan is not None else None,
        requested_plan=row.requested_plan,
        waiting=Waiting.from_json(row.waiting) if row.waiting and row.work == Work.LAUNCH else None,
        observations=Observations.from_json(row.observations or {}),
    )


def _details(row: Any) -> dict[str, Any] | None:
    """The particulars of the run's failure. An error without a stage is of a session that was lost afterwards."""
    return row.evidence if row.error["stage"] is not None else None
