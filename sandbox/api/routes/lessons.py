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
    LongText,
    Name,
    RecordId,
    Time,
    TimedQuery,
    View,
    Writable,
    answer_page,
)
from sandbox.api.http.services import Injected
from sandbox.errors import NotFound
from sandbox.learning import store

router = APIRouter(prefix="/api/v1", tags=["learning"])

Severity = Literal["low", "medium", "high", "critical"]
LessonCategory = Literal["security", "performance", "code_quality", "correctness"]
Trigger = Literal["rework", "hitl", "scheduled"]
RunStatus = Literal["running", "completed", "failed"]
RunId = Annotated[str, Field(min_length=1, max_length=255), Writable]
Id = Annotated[RecordId, Path()]


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


class LessonQuery(TimedQuery):
    agent_name: Name | None = None
    is_active: bool | None = None


class NewApplication(Body):
    lesson_id: RecordId
    agent_name: Name
    pipeline_run_id: RunId
    project_name: RunId | None = None


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
    pipeline_run_id: RunId | None = None
    lesson_id: RecordId | None = None
    agent_name: Name | None = None


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
    pipeline_run_id: RunId | None = None
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


class RefinementQuery(TimedQuery):
    pipeline_run_id: RunId | None = None


@router.get("/lessons")
async def list_lessons(
    _: CurrentCaller, services: Injected, query: Annotated[LessonQuery, Query()]
) -> Page[LessonView]:
    """Lessons, newest first."""
    return Page.model_validate(await answer_page(store.LESSONS, services.db, query))


@router.post("/lessons", status_code=201)
async def add_lesson(body: NewLesson, _: CurrentAdmin, services: Injected) -> LessonView:
    """Add a lesson (admin: its text goes into prompts)."""
    return LessonView.model_validate(await store.insert_row(services.db, store.LESSONS, body.model_dump()))


@router.patch("/lessons/{lesson_id}")
async def change_lesson(lesson_id: Id, body: LessonChange, _: CurrentAdmin, services: Injected) -> LessonView:
    """Change a lesson, or deactivate it with `is_active: false` (admin)."""
    values = body.model_dump(exclude_unset=True) or {"id": lesson_id}
    row = await store.update_row(services.db, store.LESSONS, lesson_id, values)
    if row is None:
        raise NotFound(f"There is no lesson {lesson_id}.", code="lesson_not_found")
    return LessonView.model_validate(row)


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
