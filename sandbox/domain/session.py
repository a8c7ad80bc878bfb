"""A session: its statuses and the transitions between them, its unfinished work, and its containers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sandbox.domain.egress import PUBLIC, Egress
from sandbox.domain.failures import SILENT
from sandbox.domain.observations import Observations
from sandbox.domain.plan import LaunchPlan
from sandbox.domain.variables import SessionValues


class SessionStatus(StrEnum):
    """The documented values of `sandbox_sessions.status`."""

    #: A launch is under way.
    CREATING = "creating"
    #: Containers run, and no app was started in them. A session without a project stays in this status.
    READY = "ready"
    #: The app answers.
    RUNNING = "running"
    #: Final: all its resources have been removed.
    TERMINATED = "terminated"
    #: The launch failed, or a container or an app was lost; `error` says why. Can be recovered or relaunched.
    ERROR = "error"


_S = SessionStatus

#: The permitted changes of status. Writes enforce them with a compare-and-set in SQL.
TRANSITIONS: dict[SessionStatus, frozenset[SessionStatus]] = {
    _S.CREATING: frozenset({_S.READY, _S.RUNNING, _S.ERROR, _S.TERMINATED}),
    _S.READY: frozenset({_S.CREATING, _S.RUNNING, _S.ERROR, _S.TERMINATED}),
    _S.RUNNING: frozenset({_S.CREATING, _S.ERROR, _S.TERMINATED}),
    # A container that was paused goes on, or a guest agent that was silent answers again.
    _S.ERROR: frozenset({_S.CREATING, _S.READY, _S.RUNNING, _S.TERMINATED}),
    _S.TERMINATED: frozenset(),
}


def may_become(new: SessionStatus) -> list[str]:
    """The statuses from which a session may change to `new`, for the WHERE clause of a compare-and-set."""
    return [old.value for old, targets in TRANSITIONS.items() if new in targets]


class Work(StrEnum):
    """Work that the reconciler has to do for a session and has not finished."""

    LAUNCH = "launch"
    TERMINATE = "terminate"


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """One role's container, as stored in `sandbox_sessions.containers`."""

    id: str
    ip: str | None
    runtime: str
    #: created, running, exited or gone
    status: str
    #: `exited` once the role's app is known to have exited in a session at rest, else None.
    app: str | None = None
    #: The exit code of the app, once it has exited; None if it is unknown.
    exit_code: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SessionError:
    """Why a session is in `error`. `stage` is None unless a launch failed."""

    code: str
    message: str
    hint: str
    stage: str | None
    #: The particulars of a failed launch: see `domain.evidence.FailureEvidence`. Stored with the run, not in `error`.
    details: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {**self.to_row(), "details": self.details}

    def to_row(self) -> dict[str, Any]:
        """What the column `error` holds: fields that every release knows."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "stage": self.stage}


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a launch is not being carried out just now."""

    #: What it waits for: engine.
    reason: str
    since: datetime
    #: When it gives up.
    until: datetime

    def to_json(self) -> dict[str, str]:
        return {"for": self.reason, "since": self.since.isoformat(), "until": self.until.isoformat()}

    @classmethod
    def from_json(cls, value: dict[str, str]) -> Waiting:
        return cls(value["for"], datetime.fromisoformat(value["since"]), datetime.fromisoformat(value["until"]))


@dataclass(frozen=True, slots=True)
class Session:
    """One row of `sandbox_sessions` at the time it was read. All times are timezone-aware, in UTC."""

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
    #: None when the session is at rest.
    work: Work | None
    #: The encrypted values of its environment; None if there are none, or if they are decrypted in `values`.
    sealed: bytes | None = field(default=None, repr=False)
    values: SessionValues = field(default_factory=SessionValues)
    egress: Egress = PUBLIC
    agents: tuple[str, ...] = ()
    #: Whether lessons may change the plan of this session's launches.
    lessons: bool = True
    #: Memory of each container in MiB; None for the setting's.
    memory_mb: int | None = None
    #: None until the plan stage of the session's first run has completed.
    plan: LaunchPlan | None = None
    #: The roles that the request for the session gave, which replace those of the project's plan.
    requested_plan: dict[str, dict[str, Any] | None] | None = None
    #: None unless the session is being launched and its launch waits.
    waiting: Waiting | None = None

    @property
    def silence(self) -> SessionError | None:
        """The error of a session at rest whose containers do not answer: a command in it would only wait."""
        error = self.error if self.status is SessionStatus.ERROR else None
        return error if error is not None and error.stage is None and error.code in SILENT else None

    @property
    def healthy_status(self) -> SessionStatus:
        """The status of this session once it is launched and nothing is the matter with it."""
        starts_app = self.plan is not None and any(role.start for role in self.plan.roles.values())
        return SessionStatus.RUNNING if starts_app else SessionStatus.READY

    #: What the current run has noticed of the apps.
    observations: Observations = field(default_factory=Observations)
