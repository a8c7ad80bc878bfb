"""Remedies in the plan: what earlier failures of a project have taught is applied when it is launched again."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sandbox.db.connection import Database
from sandbox.domain.plan import AppliedLesson, LaunchPlan
from sandbox.domain.session import Session
from sandbox.errors import DatabaseUnavailable
from sandbox.learning import store as lessons
from sandbox.learning.launches import store
from sandbox.learning.launches.store import OpenFailure, RemedyLesson
from sandbox.learning.remedies import Case, Deadlines, apply
from sandbox.settings import Settings

log = logging.getLogger(__name__)

#: Reads the unread failures of a user's project: `await refine(user_id, project_id)`.
Refine = Callable[[str, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class LessonOptions:
    """How launches use lessons."""

    #: False: launches go as the project plans them, and nothing is recorded about lessons with remedies.
    enabled: bool
    #: Share of the runs to which a lesson applies that go without it, in percent.
    withheld_percent: float
    deadlines: Deadlines

    @classmethod
    def of(cls, settings: Settings) -> LessonOptions:
        deadlines = Deadlines(settings.install_timeout_seconds, settings.health_timeout_seconds)
        return cls(enabled=settings.lessons, withheld_percent=settings.lessons_withheld_percent, deadlines=deadlines)


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the launch's log."""

    role: str
    line: str
    lesson_id: int
    arm: store.Arm


@dataclass(frozen=True, slots=True)
class Adjusted:
    """A plan with the remedies that apply, and what to say about them."""

    plan: LaunchPlan
    notes: Sequence[Note] = ()


@dataclass(frozen=True, slots=True)
class _Candidate:
    lesson: RemedyLesson
    failure: OpenFailure


class LaunchLessons:
    """Applies remedies to plans. One object serves all launches."""

    def __init__(self, db: Database, options: LessonOptions, refine: Refine) -> None:
        self._db = db
        self._options = options
        self._refine = refine

    async def adjust(self, session: Session, plan: LaunchPlan) -> Adjusted:
        """The plan with the remedies for the open failures of the session's project.

        Failures that no refinement run has read yet are read first, so that the second launch of a project that failed
        has the lesson. May be called again for the same run: the lot is drawn once. Raises DatabaseUnavailable.
        """
        if not (self._options.enabled and session.lessons and session.project_id):
            return Adjusted(plan)
        try:
            await self._refine(session.user_id, session.project_id)
        except DatabaseUnavailable:
            raise
        except Exception:
            # The launch goes on with the lessons that there are.
            log.exception("no lesson could be written from the failures of project %s", session.project_id)
        async with self._db.transaction() as conn:
            failures = await store.open_failures(conn, session.user_id, session.project_id)
            found = await store.remedy_lessons(conn, [one.signature for one in failures], session.project_id)
            candidates = [
                _Candidate(lesson, failure)
                for failure in failures
                for lesson in found
                if lesson.signature == failure.signature and _applies(lesson, failure, plan)
            ]
            # A lesson whose remedy would change nothing does not apply, so no lot is drawn for it.
            eligible = [one for one in candidates if self._with_remedy(session, plan, one) is not None]
            if not eligible:
                return Adjusted(plan)
            arms = await store.assign(
                conn,
                sorted({one.lesson.lesson_id for one in eligible}),
                pipeline_run_id=session.pipeline_run_id,
                project_name=session.project_id,
                channel="launch",
                withheld_percent=self._options.withheld_percent,
            )
            applied = {one.lesson.lesson_id for one in eligible if arms[one.lesson.lesson_id] == "applied"}
            await lessons.insert_chosen(
                conn, sorted(applied), pipeline_run_id=session.pipeline_run_id, project_name=session.project_id
            )
        return self._adjusted(session, plan, eligible, arms)

    def _adjusted(
        self, session: Session, plan: LaunchPlan, eligible: Sequence[_Candidate], arms: dict[int, store.Arm]
    ) -> Adjusted:
        notes = []
        for one in eligible:
            lesson_id, role = one.lesson.lesson_id, one.failure.role
            if arms[lesson_id] == "withheld":
                line = f"lesson {lesson_id} applies and is withheld by lot from this run, to measure what it prevents"
                notes.append(Note(role, line, lesson_id, "withheld"))
            elif (changed := self._with_remedy(session, plan, one)) is not None:
                plan = changed
                notes.append(Note(role, f"lesson {lesson_id}: {plan.lessons[-1].change}", lesson_id, "applied"))
        return Adjusted(plan, notes)

    def _with_remedy(self, session: Session, plan: LaunchPlan, one: _Candidate) -> LaunchPlan | None:
        """The plan with the candidate's remedy; None if it changes nothing or the project says otherwise."""
        failure = one.failure
        given = frozenset(session.values.env)
        case = Case(plan.roles[failure.role], failure.particulars, given, self._options.deadlines)
        change = apply(failure.family, case)
        if change is None:
            return None
        shown = ", ".join(f"{name} {value}" for name, value in failure.particulars.items())
        cause = f"{failure.code}: {failure.signature}" + (f" ({shown})" if shown else "")
        applied = AppliedLesson(
            lesson_id=one.lesson.lesson_id,
            role=failure.role,
            remedy=one.lesson.remedy,
            change=f"{change.text}, because an earlier launch failed with {cause}",
            failure_id=failure.failure_id,
        )
        return plan.model_copy(
            update={
                "roles": plan.roles | {failure.role: change.plan},
                "planned": {failure.role: plan.roles[failure.role]} | plan.planned,
                "lessons": (*plan.lessons, applied),
            }
        )


def _applies(lesson: RemedyLesson, failure: OpenFailure, plan: LaunchPlan) -> bool:
    """Whether the role is still planned as it was when it failed, and the lesson is about such a role."""
    role = plan.roles.get(failure.role)
    return (
        role is not None
        and role == failure.planned
        and lesson.runtime in (None, role.runtime)
        and lesson.framework in (None, role.framework)
    )
