"""What a session is: its states, the legal transitions between them, and what is recorded of its containers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sandbox.domain.plan import LaunchPlan


class SessionStatus(StrEnum):
    """The documented values of `sandbox_sessions.status`."""

    #: A launch is under way.
    CREATING = "creating"
    #: Containers are up and nothing was started in them; a blank session rests here.
    READY = "ready"
    #: The app answers.
    RUNNING = "running"
    #: Final: everything it had is removed.
    TERMINATED = "terminated"
    #: The launch failed, or a container or an app was lost; `error` says why. Can be recovered or relaunched.
    ERROR = "error"


_S = SessionStatus

#: The only changes of status there are; everything else is refused where it is written (compare-and-set in SQL).
TRANSITIONS: dict[SessionStatus, frozenset[SessionStatus]] = {
    _S.CREATING: frozenset({_S.READY, _S.RUNNING, _S.ERROR, _S.TERMINATED}),
    _S.READY: frozenset({_S.CREATING, _S.RUNNING, _S.ERROR, _S.TERMINATED}),
    _S.RUNNING: frozenset({_S.CREATING, _S.ERROR, _S.TERMINATED}),
    _S.ERROR: frozenset({_S.CREATING, _S.TERMINATED}),
    _S.TERMINATED: frozenset(),
}


def may_become(new: SessionStatus) -> list[str]:
    """The statuses from which `new` may be reached, for the WHERE clause of a compare-and-set."""
    return [old.value for old, targets in TRANSITIONS.items() if new in targets]


class Work(StrEnum):
    """What the reconciler has been asked to do with a session and has not finished."""

    LAUNCH = "launch"
    TERMINATE = "terminate"


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """What `sandbox_sessions.containers` keeps of one role's container."""

    id: str
    ip: str | None
    runtime: str
    #: created, running, exited, gone
    status: str
    #: `exited` once the role's app is known to have ended in a session at rest; else None.
    app: str | None = None
    #: The app's own, once it has ended; None if nobody knows it.
    exit_code: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SessionError:
    """Why a session is in `error`."""

    code: str
    message: str
    hint: str
    stage: str | None

    def to_json(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "hint": self.hint, "stage": self.stage}


@dataclass(frozen=True, slots=True)
class Session:
    """One row of `sandbox_sessions`, as it was when read. All times are UTC, timezone-aware."""

    session_id: UUID
    user_id: str
    project_id: str | None
    project_digest: str | None
    status: SessionStatus
    runtime_type: str
    containers: dict[str, ContainerInfo]
    preview_port: int | None
    backend_port: int | None
    pipeline_stage: str | None
    pipeline_run_id: str
    #: The current run of the launch pipeline (`session_runs.run_id`).
    run_id: UUID
    created_at: datetime
    last_active: datetime
    terminated_at: datetime | None
    expires_at: datetime | None
    idle_timeout_seconds: int | None
    max_lifetime_seconds: int | None
    error: SessionError | None
    #: Not finished work, or None when the session is at rest.
    work: Work | None
    env: dict[str, str] = field(default_factory=dict)
    agents: tuple[str, ...] = ()
    #: None until the plan stage of the session's first run has completed.
    plan: LaunchPlan | None = None
