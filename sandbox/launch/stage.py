"""The contract of a launch stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sandbox.domain.events import NewEvent
from sandbox.domain.plan import LaunchPlan
from sandbox.domain.session import Session
from sandbox.domain.stages import StageName
from sandbox.engine.base import Engine, ResourceKind


class StageJournal(Protocol):
    """What a stage may write while it runs. Every write is durable when it returns and refused (`LostOwnership`) once
    the session belongs to another replica or has been asked to do something else."""

    #: What was left with `write(progress=…)`, by earlier attempts at this stage too; empty at the first.
    progress: dict[str, Any]

    async def write(self, events: Sequence[NewEvent], *, progress: dict[str, Any] | None = None) -> None:
        """Append events and remember how far the stage has got, in one transaction."""

    async def say(self, line: str, *, role: str = "") -> None:
        """Append a log line of our own (stream `system`), once: repeated after a crash it says nothing."""

    async def about_to_make(self, resources: Sequence[tuple[ResourceKind, str, str | None]]) -> None:
        """The row before the resource: record (kind, name, role) of what is about to be made on the engine."""


@dataclass(slots=True)
class StageContext:
    """What a stage may use. `session` is the row as it was when the stage began."""

    session: Session
    engine: Engine
    journal: StageJournal
    #: None only before the plan stage has completed.
    maybe_plan: LaunchPlan | None

    @property
    def plan(self) -> LaunchPlan:
        if self.maybe_plan is None:
            raise RuntimeError("a stage after `plan` ran before there was a plan")
        return self.maybe_plan

    def process_name(self, what: str) -> str:
        """The name of this run's process in a container: a run that is resumed finds it, a new run starts its own."""
        return f"{what}-{self.session.run_id.hex[:12]}"


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a completed stage leaves: columns of the session's row to set in the checkpoint's own transaction."""

    changes: dict[str, Any] = field(default_factory=dict)
    #: Events that tell of it, just before the stage's own `completed`.
    events: tuple[NewEvent, ...] = ()
    #: True when there was nothing to do for this session at all.
    skipped: bool = False


class Stage(Protocol):
    """One step of a launch.

    `run` may be called again after a crash at any point, so it looks before it acts; "already there" and "already
    gone" are success. It raises `StageFailed(code, message, hint)` when the launch cannot go on; any other error is
    taken as passing and the stage is tried again a few times.
    """

    name: StageName

    async def run(self, context: StageContext) -> StageResult: ...
