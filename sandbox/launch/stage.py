"""The contract of a launch stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from sandbox.domain.plan import LaunchPlan
from sandbox.domain.session import Session
from sandbox.domain.stages import StageName
from sandbox.engine.base import Engine, Stream


class StageLog(Protocol):
    """Where a stage's output goes: durable in batches, then to every viewer."""

    async def lines(self, role: str, stream: Stream | str, lines: list[str]) -> None:
        """Add lines of one role's output. Returns at once unless the log is far behind (then it pushes back)."""

    async def say(self, line: str, *, role: str = "") -> None:
        """Add a line of our own (stream `system`)."""


@dataclass(slots=True)
class StageContext:
    """What a stage may use. `session` is the row as it was when the stage began."""

    session: Session
    engine: Engine
    log: StageLog
    #: None only before the plan stage has completed.
    maybe_plan: LaunchPlan | None

    @property
    def plan(self) -> LaunchPlan:
        if self.maybe_plan is None:
            raise RuntimeError("a stage after `plan` ran before there was a plan")
        return self.maybe_plan


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a completed stage leaves: columns of the session's row to set in the checkpoint's own transaction."""

    changes: dict[str, Any] = field(default_factory=dict)
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
