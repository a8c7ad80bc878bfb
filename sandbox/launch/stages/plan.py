"""Stage `plan`: determines what will be launched, from the project's manifest or by detection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from sandbox.domain.events import EventType, NewEvent
from sandbox.domain.plan import LaunchPlan, RolePlan, blank_plan
from sandbox.domain.session import Session
from sandbox.domain.stages import StageName
from sandbox.launch.stage import StageContext, StageResult
from sandbox.learning.launches.plans import Adjusted, Note


class Plans(Protocol):
    """The plans of stored project archives (`projects/service.py`)."""

    async def plan_for(
        self, digest: str, requested: Mapping[str, Mapping[str, Any] | None] | None = None
    ) -> LaunchPlan: ...


class Lessons(Protocol):
    """What earlier failures of a project have taught (`learning/launches/plans.py`)."""

    async def adjust(self, session: Session, plan: LaunchPlan) -> Adjusted: ...


class PlanStage:
    """Determines the plan once in a run; later stages and attempts read it from the session's row."""

    name = StageName.PLAN

    def __init__(self, plans: Plans, lessons: Lessons) -> None:
        self._plans = plans
        self._lessons = lessons

    async def run(self, context: StageContext) -> StageResult:
        session = context.session
        if session.project_digest is None:
            plan = blank_plan(session.runtime_type)
        else:
            plan = await self._plans.plan_for(session.project_digest, session.requested_plan)
        adjusted = await self._lessons.adjust(session, plan)
        plan = adjusted.plan
        lines = [_line(role, _summary(what)) for role, what in plan.roles.items()]
        return StageResult(plan=plan, events=(*lines, *(_lesson(note) for note in adjusted.notes)))


def _summary(role: RolePlan) -> str:
    parts = (role.framework, role.runtime, f"port {role.port}" if role.port else None)
    return f"{', '.join(part for part in parts if part)}; start: {role.start or 'nothing'}"


def _line(role: str, line: str, **more: Any) -> NewEvent:
    data = {"stage": StageName.PLAN.value, "role": role, "stream": "system", "line": line, **more}
    return NewEvent(EventType.LOG, data)


def _lesson(note: Note) -> NewEvent:
    """A line of the log that names the lesson, for people and for programs."""
    return _line(note.role, note.line, lesson={"lesson_id": note.lesson_id, "arm": note.arm})
