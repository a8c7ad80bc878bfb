"""What the end of a launch means for lessons: evidence of its failure, outcomes, and lessons that do harm."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database
from sandbox.domain.evidence import FailureEvidence
from sandbox.domain.failures import FAILURE_STAGES
from sandbox.domain.plan import ROLE_PATTERN, LaunchPlan
from sandbox.domain.session import Session, SessionError
from sandbox.domain.stages import StageName, StageState
from sandbox.learning import store as lessons
from sandbox.learning.applications import verify_outcomes
from sandbox.learning.estimate import harms
from sandbox.learning.families import Finding, recognise
from sandbox.learning.launches import store

#: Days that a lesson stays in use after it was learned, seen again or has helped.
KEPT_DAYS = 90
#: Failures that no change of the project could have avoided. They say nothing about lessons.
NOT_OF_THE_PROJECT = frozenset(
    {
        "project_not_found",
        "network_failed",
        "container_start_failed",
        "agent_unreachable",
        "image_missing",
        "workspace_failed",
        "disk_full",
        "engine_error",
        "agent_refused",
        "internal_error",
    }
)
_ROLE = re.compile(rf"{ROLE_PATTERN[:-1]}(?=: )")


class Alerts(Protocol):
    """Opens alerts (`records/alerts/store.py`)."""

    async def open(self, connection: AsyncConnection, values: Mapping[str, Any]) -> tuple[dict[str, Any], bool]: ...


class Outcomes:
    """Records the ends of launches. One object serves all of them."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts = alerts

    async def record(
        self,
        conn: AsyncConnection,
        session: Session,
        error: SessionError | None,
        stages: Mapping[StageName, StageState],
    ) -> None:
        """Record why the session's run failed, if it did, and what became of the lessons that applied to it.

        `stages` are those that have started. Runs in the transaction that ends the run. A lesson that this run shows to
        harm is put out of use, with an alert.
        """
        # Failures are locked before lessons, as refinement runs do.
        if error is None and session.project_id:
            needed = [lesson.failure_id for lesson in session.plan.lessons] if session.plan else []
            await store.resolve(conn, session.user_id, session.project_id, needed)
        await store.lock_lessons(conn, session.pipeline_run_id)
        failed_stage = StageName(error.stage) if error and error.stage else None
        finding = await self._failure(conn, session, error) if error else None
        # A skipped stage did no work, so it is no evidence for or against a lesson.
        reached = {name for name, state in stages.items() if state is not StageState.SKIPPED}
        await verify_outcomes(
            conn,
            pipeline_run_id=session.pipeline_run_id,
            failure_code=error.code if error else None,
            failed_stage=failed_stage,
            reached_stages=reached,
            signature=finding.signature if finding else None,
        )
        if error and error.code in NOT_OF_THE_PROJECT:
            return
        await store.keep_or_decay(conn, session.pipeline_run_id, KEPT_DAYS)
        settled = await store.settle(conn, session.pipeline_run_id, failed=error is not None)
        await self.withdraw_harmful(conn, settled)

    async def report(self, db: Database, pipeline_run_id: str, *, failed: bool) -> list[int]:
        """Record how a run ended that is no launch, for the lessons that were drawn for it; the lessons.

        What a launch has recorded already stays.
        """
        async with db.transaction() as conn:
            await store.lock_lessons(conn, pipeline_run_id)
            settled = await store.settle(conn, pipeline_run_id, failed=failed)
            await self.withdraw_harmful(conn, settled)
            return settled

    async def _failure(self, conn: AsyncConnection, session: Session, error: SessionError) -> Finding:
        """Record the evidence of the failure."""
        output = ""
        if error.stage:
            output = await store.output_of_stage(conn, session.session_id, session.run_id, error.stage)
        evidence = FailureEvidence.from_json(error.details) if error.details else None
        finding = recognise(error.code, error.message, output, evidence)
        if session.project_id is None or error.code in NOT_OF_THE_PROJECT or error.code not in FAILURE_STAGES:
            return finding
        # While the stage `plan` has not completed, the row still has the plan of the run before.
        plan = session.plan if error.stage != StageName.PLAN else None
        role = evidence.role if evidence and evidence.role and plan and evidence.role in plan.roles else None
        role = role or _role(plan, error.message)
        had = [lesson.failure_id for lesson in plan.lessons] if plan else []
        row = store.FailureRow(
            stage=error.stage or "",
            code=error.code,
            role=role,
            family=finding.family,
            signature=finding.signature,
            particulars=finding.particulars,
            planned=plan.as_planned(role) if plan else None,
            remedied=await store.same_failure(conn, had, role, finding.signature, finding.particulars),
        )
        await store.insert_failure(conn, session, row)
        return finding

    async def withdraw_harmful(self, conn: AsyncConnection, lesson_ids: Collection[int]) -> None:
        """Put those of these lessons out of use that surely do harm, each with an alert."""
        for lesson_id, counts in (await lessons.arms(conn, sorted(lesson_ids))).items():
            if not harms(counts):
                continue
            reason = (
                f"{counts.applied_failed} of {counts.applied} runs with it failed, and {counts.withheld_failed} of "
                f"{counts.withheld} without it."
            )
            if await store.withdraw(conn, lesson_id, reason):
                await self._alerts.open(
                    conn,
                    {
                        "severity": "warning",
                        "title": f"Lesson {lesson_id} did harm and is out of use",
                        "message": reason,
                        "source": "learning",
                        "metadata": {"cause": f"lesson-harm:{lesson_id}", "lesson_id": lesson_id},
                    },
                )


def _role(plan: LaunchPlan | None, message: str) -> str:
    """The role that a failure's message begins with, else the only role of the plan, else none."""
    roles = plan.roles if plan else {}
    match = _ROLE.match(message)
    if match and match[0] in roles:
        return match[0]
    return next(iter(roles)) if len(roles) == 1 else ""
