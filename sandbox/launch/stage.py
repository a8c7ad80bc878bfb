"""The contract of a launch stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from uuid import UUID

from sandbox.domain.events import NewEvent
from sandbox.domain.observations import Observations
from sandbox.domain.plan import LaunchPlan
from sandbox.domain.processes import ProcessKind, process_name
from sandbox.domain.session import ContainerInfo, Session
from sandbox.domain.stages import StageName
from sandbox.engine.base import Engine, ResourceKind


@dataclass(frozen=True, slots=True)
class RoleContainer:
    """Where a role's container comes from."""

    #: The container of the pool that is or was the role's; None if it got none.
    member: UUID | None
    #: Whether the role had a container before.
    had_one: bool


class StageJournal(Protocol):
    """What a stage may write while it runs.

    A write is durable when it returns. Every write raises `LostOwnership` once another replica owns the session or the
    session's work has changed (for example after DELETE), and `DatabaseUnavailable` if nothing can be written.
    """

    #: What was stored with `write(progress=…)`, by earlier attempts at this stage too. Empty at the first attempt.
    progress: dict[str, Any]

    async def write(self, events: Sequence[NewEvent], *, progress: dict[str, Any] | None = None) -> None:
        """Append events and merge `progress` (JSON values) into the stored progress, in one transaction."""

    async def log_line(self, line: str, *, role: str = "", warning: Mapping[str, str] | None = None) -> None:
        """Append a log event of the service (stream `system`), with `warning` if it reports one. The same line of the
        same role is appended once in a stage, also if the stage is run again after a crash."""

    async def record_resources(self, resources: Sequence[tuple[ResourceKind, str, str | None]]) -> None:
        """Record (kind, name, role) of resources before they are created on the engine, so that none can exist there
        without a row."""

    async def record_containers(self, roles: Mapping[str, str | None]) -> dict[str, RoleContainer]:
        """Record each role's container and volume, as `record_resources` does, and claim a container of the pool for
        each role that has no volume yet.

        `roles` maps them to the fingerprint of the container that they need, or to None if they need one of their own.
        """


@dataclass(slots=True)
class StageContext:
    """What a stage may use. `session` is the session's row as it was when the stage began."""

    session: Session
    engine: Engine
    journal: StageJournal

    @property
    def plan(self) -> LaunchPlan:
        """The session's plan. Raises RuntimeError in the plan stage of a session's first run, which has none yet."""
        if self.session.plan is None:
            raise RuntimeError("the session has no plan yet: the plan stage has not completed")
        return self.session.plan

    def process_name(self, kind: ProcessKind) -> str:
        """The name of this run's process of that kind, in any container of the session."""
        return process_name(kind, self.session.run_id)


@dataclass(frozen=True, slots=True)
class SessionPorts:
    """`preview_port` and `backend_port` of the session's row; None where the plan has no such port."""

    preview: int | None
    backend: int | None


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a completed stage changes in the session's row, and the events it appends.

    All of it is written in the checkpoint's transaction. `None` leaves the row as it is.
    """

    #: Sets `runtime_type` too, to the plan's primary runtime.
    plan: LaunchPlan | None = None
    #: The container of each role.
    containers: dict[str, ContainerInfo] | None = None
    ports: SessionPorts | None = None
    #: Stored with the run.
    observations: Observations | None = None
    #: Appended just before the stage's own `completed` or `skipped` event.
    events: tuple[NewEvent, ...] = ()
    #: True when the stage had nothing to do for this session.
    skipped: bool = False

    def applied_to(self, session: Session) -> Session:
        """The session as its row is once these changes are written."""
        if self.plan is not None:
            session = replace(session, plan=self.plan, runtime_type=self.plan.primary_runtime)
        if self.containers is not None:
            session = replace(session, containers=self.containers)
        if self.ports is not None:
            session = replace(session, preview_port=self.ports.preview, backend_port=self.ports.backend)
        if self.observations is not None:
            session = replace(session, observations=self.observations)
        return session


class Stage(Protocol):
    """One step of a launch.

    `run` may be called again after a crash at any point. It therefore checks what exists before it acts; "already
    exists" and "already removed" count as success. It raises `StageFailed(code, message, hint)` when the launch cannot
    go on. After an `EngineError` or a `GuestError` the pipeline runs the stage again a few times.
    """

    name: StageName

    async def run(self, context: StageContext) -> StageResult: ...
