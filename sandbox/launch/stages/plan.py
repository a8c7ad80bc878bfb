"""Stage `plan`: determines what will be launched, from the project's manifest or by detection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from sandbox.domain.plan import LaunchPlan, blank_plan
from sandbox.domain.stages import StageName
from sandbox.launch.stage import StageContext, StageResult


class Plans(Protocol):
    """The plans of stored project archives (`projects/service.py`)."""

    async def plan_for(
        self, digest: str, requested: Mapping[str, Mapping[str, Any] | None] | None = None
    ) -> LaunchPlan: ...


class PlanStage:
    """Determines the plan once in a run; later stages and attempts read it from the session's row."""

    name = StageName.PLAN

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    async def run(self, context: StageContext) -> StageResult:
        session = context.session
        if session.project_digest is None:
            plan = blank_plan(session.runtime_type)
        else:
            plan = await self._plans.plan_for(session.project_digest, session.requested_plan)
        for role, what in plan.roles.items():
            summary = ", ".join(
                part for part in (what.framework, what.runtime, f"port {what.port}" if what.port else None) if part
            )
            await context.journal.log_line(f"{summary}; start: {what.start or 'nothing'}", role=role)
        return StageResult(plan=plan)
