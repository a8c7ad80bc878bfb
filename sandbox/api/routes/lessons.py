"""Lessons for the platform's agents, their applications and outcomes, statistics, and refinement runs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field, field_validator
from sqlalchemy.exc import IntegrityError

from sandbox.api.http.auth import CurrentAdmin, CurrentCaller
from sandbox.api.http.pages import Page
from sandbox.api.http.record_models import (
    Body,
    Int,
    ListQuery,
    LongName,
    LongText,
    Name,
    RecordId,
    ShortName,
    Signature,
    Time,
    TimedQuery,
    View,
    answer_page,
)
from sandbox.api.http.services import Injected, Services
from sandbox.db.tables import Row
from sandbox.errors import NotFound
from sandbox.learning import store
from sandbox.learning.effects import with_effects
from sandbox.learning.refinement.store import Scope

router = APIRouter(prefix="/api/v1", tags=["learning"])

Severity = Literal["low", "medium", "high", "critical"]
LessonCategory = Literal["security", "performance", "code_quality", "correctness"]
Trigger = Literal["rework", "hitl", "scheduled"]
RunStatus = Literal["running", "completed", "failed"]
Id = Annotated[RecordId, Path()]


class LessonTrigger(Body):
    """To which runs a lesson applies; a field that is left out or null means any."""

    signature: Signature | None = Field(None, description="Normalised signature of the failure that it is about")
    runtime: ShortName | None = None
    framework: ShortName | None = None
    project_id: LongName | None = None


class TriggerView(View):
    signature: str | None
    runtime: str | None
    framework: str | None
    project_id: str | None
    remedy: str | None = Field(description="The change of the plan that launches make by themselves, if any")
    written_by: Literal["rules", "model", "person"]
    wording_problem: str | None = Field(description="Why the text is the rules' although a model is configured")
    occurrences: int
    last_seen_at: datetime
    withdrawn_reason: str | None = Field(description="Why the service put the lesson out of use")
    withdrawn_at: datetime | None


class EffectView(View):
    """What the lesson prevents, from runs to which it applies: with it and, drawn by lot, without it."""

    applied: int
    applied_failed: int
    withheld: int
    withheld_failed: int
    needed_in_each_arm: int
    prevented: float | None = Field(description="Failure rate without the lesson minus that with it")
    low: float | None = Field(description="Lower bound of the 95% interval")
    high: float | None
    verdict: Literal["too_few_to_tell", "helps", "harms", "unclear"]


class NewLesson(Body):
    agent_name: Name
    lesson_text: Annotated[LongText, Field(min_length=1, description="Put into the agent's prompt")]
    severity: Severity
    category: LessonCategory
    source_issue_type: Name | None = Field(
        None,
        description="The failure that the lesson prevents, such as a launch's failure code; verifies outcomes",
    )
    is_active: bool = True
    expires_at: Time | None = None
    trigger: LessonTrigger | None = Field(None, description="To which runs it applies; default all of the agent")


class LessonChange(Body):
    """Fields that are left out stay unchanged; `expires_at: null` removes the expiry."""

    lesson_text: Annotated[LongText, Field(min_length=1)] | None = None
    severity: Severity | None = None
    category: LessonCategory | None = None
    source_issue_type: Name | None = None
    is_active: bool | None = None
    expires_at: Time | None = None

    @field_validator("lesson_text", "severity", "category", "is_active")
    @classmethod
    def _not_null(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("cannot be null")
        return value


class LessonView(View):
    id: int
    agent_name: str
    lesson_text: str
    severity: Severity
    category: LessonCategory
    source_issue_type: str | None
    times_applied: int
    effectiveness_score: float | None = Field(
        description="Share of verified outcomes that were prevented; null without verified outcomes"
    )
    is_active: bool
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime
    trigger: TriggerView | None = Field(description="To which runs it applies; null: to all of the agent")
    effect: EffectView


class LessonQuery(TimedQuery):
    agent_name: Name | None = None
    is_active: bool | None = None


class NewApplication(Body):
    lesson_id: RecordId
    agent_name: Name
    pipeline_run_id: LongName
    project_name: LongName | None = None


class Outcome(Body):
    prevented_issue: bool
    outcome_notes: LongText | None = None


class ApplicationView(View):
    id: int
    lesson_id: int
    agent_name: str
    pipeline_run_id: str
    project_name: str | None
    prevented_issue: bool | None = Field(description="Null until the outcome is verified")
    outcome_notes: str | None
    outcome_verified_at: datetime | None


class ApplicationQuery(TimedQuery):
    pipeline_run_id: LongName | None = None
    lesson_id: RecordId | None = None
    agent_name: Name | None = None


class AssignmentView(View):
    """A run to which a lesson applies, and whether the lot gave it the lesson."""

    pipeline_run_id: str
    lesson_id: int
    arm: Literal["applied", "withheld"]
    channel: Literal["launch", "prompt"] = Field(description="A remedy in a plan, or text in a prompt")
    project_name: str | None
    assigned_at: datetime
    failed: bool | None = Field(description="How the run ended; null until that is known")
    verified_at: datetime | None


class AssignmentQuery(TimedQuery):
    pipeline_run_id: LongName | None = None
    lesson_id: RecordId | None = None
    arm: Literal["applied", "withheld"] | None = None


class RunEnd(Body):
    pipeline_run_id: LongName
    failed: bool


class SettledView(View):
    lesson_ids: list[int] = Field(description="The lessons that were drawn for the run, in both arms")


class StatsView(View):
    agent_name: str
    total_lessons_learned: int
    active_lessons: int
    total_applications: int
    successful_preventions: int
    overall_effectiveness: float
    last_lesson_learned_at: datetime | None
    last_lesson_applied_at: datetime | None


class StatsQuery(ListQuery):
    agent_name: Name | None = None


class NewRefinementRun(Body):
    triggered_by: Trigger
    pipeline_run_id: LongName | None = None
    issues_analyzed: Int = 0
    lessons_generated: Int = 0
    status: RunStatus = "running"
    completed_at: Time | None = None
    error_message: LongText | None = None


class RefinementChange(Body):
    """The progress of a run. Fields that are left out stay unchanged."""

    issues_analyzed: Int | None = None
    lessons_generated: Int | None = None
    status: RunStatus | None = None
    completed_at: Time | None = None
    error_message: LongText | None = None


class RefinementRunView(View):
    id: int
    triggered_by: Trigger
    pipeline_run_id: str | None
    issues_analyzed: int
    lessons_generated: int
    status: RunStatus
    started_at: datetime
    completed_at: datetime | None
    error_message: str | None


class RefinementOrder(Body):
    """What a refinement run is to read: everything that no run has read yet, or one pipeline run's launches."""

    pipeline_run_id: LongName | None = None


class RefinementQuery(TimedQuery):
    pipeline_run_id: LongName | None = None


@router.get("/lessons")
async def list_lessons(
    caller: CurrentCaller, services: Injected, query: Annotated[LessonQuery, Query()]
) -> Page[LessonView]:
    """Lessons, newest first. Those that quote evidence of failures are for admins."""
    page = await answer_page(store.LESSONS, services.db, query, where=[] if caller.is_admin else [store.FOR_ALL])
    return Page.model_validate(page | {"items": await with_effects(services.db, page["items"])})


@router.post("/lessons", status_code=201)
async def add_lesson(body: NewLesson, _: CurrentAdmin, services: Injected) -> LessonView:
    """Add a lesson (admin: its text goes into prompts)."""
    values = body.model_dump(exclude={"trigger"})
    row = await store.insert_lesson(services.db, values, body.trigger.model_dump() if body.trigger else None)
    return await _view(services, row)


@router.patch("/lessons/{lesson_id}")
async def change_lesson(lesson_id: Id, body: LessonChange, _: CurrentAdmin, services: Injected) -> LessonView:
    """Change a lesson, or deactivate it with `is_active: false` (admin)."""
    values = body.model_dump(exclude_unset=True) or {"id": lesson_id}
    row = await store.change_lesson(services.db, lesson_id, values)
    if row is None:
        raise NotFound(f"There is no lesson {lesson_id}.", code="lesson_not_found")
    return await _view(services, row)


async def _view(services: Services, row: Row) -> LessonView:
    (whole,) = await with_effects(services.db, [row])
    return LessonView.model_validate(whole)


@router.get("/lesson-applications")
async def list_applications(
    _: CurrentCaller, services: Injected, query: Annotated[ApplicationQuery, Query()]
) -> Page[ApplicationView]:
    """Applications of lessons to runs, newest first; `from` and `to` refer to `outcome_verified_at`."""
    return Page.model_validate(await answer_page(store.APPLICATIONS, services.db, query))


@router.post("/lesson-applications", status_code=201)
async def add_application(body: NewApplication, _: CurrentAdmin, services: Injected) -> ApplicationView:
    """Record that a lesson was applied to a run (admin). Launches do this automatically."""
    try:
        row = await store.insert_row(services.db, store.APPLICATIONS, body.model_dump())
    except IntegrityError as error:
        raise NotFound(f"There is no lesson {body.lesson_id}.", code="lesson_not_found") from error
    return ApplicationView.model_validate(row)


@router.post("/lesson-applications/{application_id}/outcome")
async def verify_outcome(application_id: Id, body: Outcome, _: CurrentAdmin, services: Injected) -> ApplicationView:
    """Record whether the lesson prevented the issue (admin). May be repeated to correct the outcome."""
    row = await store.set_outcome(
        services.db, application_id, prevented_issue=body.prevented_issue, notes=body.outcome_notes
    )
    if row is None:
        raise NotFound(f"There is no application {application_id}.", code="lesson_application_not_found")
    return ApplicationView.model_validate(row)


@router.get("/lesson-assignments")
async def list_assignments(
    _: CurrentAdmin, services: Injected, query: Annotated[AssignmentQuery, Query()]
) -> Page[AssignmentView]:
    """Runs to which lessons apply, with and without them (admin); `from` and `to` refer to `assigned_at`."""
    return Page.model_validate(await answer_page(store.ASSIGNMENTS, services.db, query))


@router.post("/lesson-assignments/outcome")
async def report_run(body: RunEnd, _: CurrentAdmin, services: Injected) -> SettledView:
    """Record how a run ended for which an agent got lessons and which is no launch (admin). Launches do this
    automatically, and what they have recorded stays."""
    settled = await services.outcomes.report(services.db, body.pipeline_run_id, failed=body.failed)
    return SettledView(lesson_ids=settled)


@router.get("/learning-stats")
async def list_stats(_: CurrentCaller, services: Injected, query: Annotated[StatsQuery, Query()]) -> Page[StatsView]:
    """Statistics per agent, ordered by name, descending."""
    return Page.model_validate(await answer_page(store.STATS, services.db, query))


@router.get("/refinement-runs")
async def list_refinement_runs(
    _: CurrentCaller, services: Injected, query: Annotated[RefinementQuery, Query()]
) -> Page[RefinementRunView]:
    """Runs that derived lessons from issues, newest first."""
    return Page.model_validate(await answer_page(store.REFINEMENT_RUNS, services.db, query))


@router.post("/refinement-runs", status_code=201)
async def add_refinement_run(body: NewRefinementRun, _: CurrentAdmin, services: Injected) -> RefinementRunView:
    """Record a refinement run (admin)."""
    values = body.model_dump(exclude_none=True)
    return RefinementRunView.model_validate(await store.insert_row(services.db, store.REFINEMENT_RUNS, values))


@router.post("/refinement-runs/execute", status_code=201)
async def execute_refinement_run(
    _: CurrentAdmin, services: Injected, body: RefinementOrder | None = None
) -> RefinementRunView:
    """Carry out a refinement run now (admin): it reads what has failed since the last one and writes lessons."""
    run_id = await services.refiner.run("hitl", Scope(pipeline_run_id=body.pipeline_run_id if body else None))
    row = await store.REFINEMENT_RUNS.one(services.db, {"id": run_id})
    return RefinementRunView.model_validate(row)


@router.patch("/refinement-runs/{run_id}")
async def change_refinement_run(
    run_id: Id, body: RefinementChange, _: CurrentAdmin, services: Injected
) -> RefinementRunView:
    """Update a refinement run (admin)."""
    values = body.model_dump(exclude_none=True) or {"id": run_id}
    row = await store.update_row(services.db, store.REFINEMENT_RUNS, run_id, values)
    if row is None:
        raise NotFound(f"There is no refinement run {run_id}.", code="refinement_run_not_found")
    return RefinementRunView.model_validate(row)
