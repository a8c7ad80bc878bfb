"""SQL of failures, of the lessons that apply to a run, and of what became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.domain.plan import RolePlan
from sandbox.domain.session import Session

Arm = Literal["applied", "withheld"]
Channel = Literal["launch", "prompt"]

#: Most failures of one project that a launch looks at.
MAX_FAILURES = 50

#: The latest failure of each kind that nothing has resolved, unless its remedy was tried and did not help.
_OPEN = text(f"""
    SELECT DISTINCT ON (role, signature, particulars)
           failure_id, role, family, signature, code, particulars, planned
      FROM launch_failures AS failure
     WHERE user_id = :user_id AND project_id = :project_id AND resolved_at IS NULL AND planned IS NOT NULL
       AND NOT EXISTS (SELECT FROM launch_failures AS tried
                        WHERE tried.user_id = failure.user_id AND tried.project_id = failure.project_id
                          AND tried.resolved_at IS NULL AND tried.remedied
                          AND (tried.role, tried.signature, tried.particulars)
                            = (failure.role, failure.signature, failure.particulars))
     ORDER BY role, signature, particulars, failure_id DESC
     LIMIT {MAX_FAILURES}
""")
#: Lessons with a remedy; a condition that is NULL holds for every run.
_REMEDIES = text("""
    SELECT trigger.lesson_id, trigger.agent_name, trigger.signature, trigger.remedy,
           trigger.runtime, trigger.framework
      FROM lesson_triggers AS trigger JOIN agent_lessons AS lesson ON lesson.id = trigger.lesson_id
     WHERE trigger.signature = ANY(:signatures) AND trigger.remedy IS NOT NULL
       AND (trigger.project_id IS NULL OR trigger.project_id = :project_id)
       AND lesson.is_active AND (lesson.expires_at IS NULL OR lesson.expires_at > NOW())
     ORDER BY trigger.lesson_id
""")
#: The lot is drawn once for a run and a lesson: a repeated call keeps the arm.
_ASSIGN = text("""
    INSERT INTO lesson_assignments (pipeline_run_id, lesson_id, arm, channel, project_name)
    SELECT :pipeline_run_id, lesson_id, CASE WHEN random() * 100 < :withheld_percent THEN 'withheld' ELSE 'applied' END,
           :channel, :project_name
      FROM unnest(CAST(:lesson_ids AS integer[])) AS lesson_id
     ORDER BY lesson_id
        ON CONFLICT DO NOTHING
""")
_ARMS = text("SELECT lesson_id, arm FROM lesson_assignments WHERE pipeline_run_id = :pipeline_run_id")
_INSERT_FAILURE = text("""
    INSERT INTO launch_failures (run_id, pipeline_run_id, user_id, project_id, agents, stage, code, role, runtime,
                                 framework, family, signature, particulars, planned, remedied)
    VALUES (:run_id, :pipeline_run_id, :user_id, :project_id, CAST(:agents AS jsonb), :stage, :code, :role, :runtime,
            :framework, :family, :signature, CAST(:particulars AS jsonb), CAST(:planned AS jsonb), :remedied)
""")
_OUTPUT = text("""
    SELECT data->>'line' AS line FROM (
        SELECT seq, data FROM session_events
         WHERE session_id = :session_id AND run_id = :run_id AND type = 'log'
           AND data->>'stage' = :stage AND data->>'stream' <> 'system'
         ORDER BY seq DESC LIMIT :limit) AS last
     ORDER BY seq
""")
_SAME = text("SELECT family, signature, particulars, role FROM launch_failures WHERE failure_id = ANY(:ids)")
_RESOLVE = text("""
    UPDATE launch_failures SET resolved_at = NOW()
     WHERE user_id = :user_id AND project_id = :project_id AND resolved_at IS NULL
       AND (role, signature) <> ALL(SELECT needed.role, needed.signature FROM launch_failures AS needed
                                     WHERE needed.failure_id = ANY(:needed))
""")
#: In the order of their ids, like the triggers of the documented tables: two runs that end at once cannot deadlock.
_LOCK_LESSONS = text("""
    SELECT id FROM agent_lessons
     WHERE id IN (SELECT lesson_id FROM lesson_assignments WHERE pipeline_run_id = :pipeline_run_id
                  UNION SELECT lesson_id FROM agent_lesson_applications WHERE pipeline_run_id = :pipeline_run_id)
     ORDER BY id FOR NO KEY UPDATE
""")
_SETTLE = text("""
    UPDATE lesson_assignments SET failed = :failed, verified_at = NOW()
     WHERE pipeline_run_id = :pipeline_run_id AND failed IS NULL
    RETURNING lesson_id
""")
#: A lesson that helps is kept longer. One that does not has half of its remaining time.
_KEEP_OR_DECAY = text("""
    UPDATE agent_lessons AS lesson
       SET expires_at = CASE WHEN application.prevented_issue
                             THEN greatest(lesson.expires_at, CAST(NOW() AS timestamp) + make_interval(days => :days))
                             ELSE CAST(NOW() AS timestamp) + (lesson.expires_at - CAST(NOW() AS timestamp)) / 2 END
      FROM agent_lesson_applications AS application JOIN lesson_triggers AS trigger USING (lesson_id)
     WHERE application.lesson_id = lesson.id AND application.pipeline_run_id = :pipeline_run_id
       AND application.prevented_issue IS NOT NULL AND trigger.written_by <> 'person'
       AND lesson.expires_at > NOW() AND lesson.is_active
""")
_WITHDRAW = text("""
    WITH withdrawn AS (
        UPDATE agent_lessons SET is_active = FALSE WHERE id = :lesson_id AND is_active RETURNING id)
    UPDATE lesson_triggers SET withdrawn_reason = :reason, withdrawn_at = NOW()
     WHERE lesson_id = (SELECT id FROM withdrawn)
    RETURNING lesson_id
""")


@dataclass(frozen=True, slots=True)
class OpenFailure:
    """A failure of a project that no launch without a lesson has got past since."""

    failure_id: int
    role: str
    family: str
    signature: str
    code: str
    particulars: dict[str, str]
    #: The role's plan as the project had it.
    planned: RolePlan


@dataclass(frozen=True, slots=True)
class RemedyLesson:
    """A lesson with a remedy."""

    lesson_id: int
    agent_name: str
    signature: str
    remedy: str
    runtime: str | None
    framework: str | None


@dataclass(frozen=True, slots=True)
class FailureRow:
    """The evidence of one failed launch; see the table `launch_failures`."""

    stage: str
    code: str
    role: str
    family: str
    signature: str
    particulars: Mapping[str, str]
    planned: RolePlan | None
    remedied: bool


async def open_failures(conn: AsyncConnection, user_id: str, project_id: str) -> list[OpenFailure]:
    """The failures of a user's project that are open, each kind once, oldest first."""
    rows = await conn.execute(_OPEN, {"user_id": user_id, "project_id": project_id})
    found = [
        OpenFailure(
            row.failure_id,
            row.role,
            row.family,
            row.signature,
            row.code,
            row.particulars,
            RolePlan.model_validate(row.planned, extra="ignore"),
        )
        for row in rows
    ]
    return sorted(found, key=lambda failure: failure.failure_id)


async def remedy_lessons(conn: AsyncConnection, signatures: Sequence[str], project_id: str) -> list[RemedyLesson]:
    """The active lessons with a remedy for one of these signatures."""
    rows = await conn.execute(_REMEDIES, {"signatures": list(signatures), "project_id": project_id})
    return [RemedyLesson(*row) for row in rows]


async def assign(
    conn: AsyncConnection,
    lesson_ids: Sequence[int],
    *,
    pipeline_run_id: str,
    project_name: str | None,
    channel: Channel,
    withheld_percent: float,
) -> dict[int, Arm]:
    """Draw for each lesson whether the run gets it; the arms of all the run's lessons."""
    values = {
        "pipeline_run_id": pipeline_run_id,
        "lesson_ids": list(lesson_ids),
        "channel": channel,
        "project_name": project_name,
        "withheld_percent": withheld_percent,
    }
    await conn.execute(_ASSIGN, values)
    rows = await conn.execute(_ARMS, {"pipeline_run_id": pipeline_run_id})
    return {row.lesson_id: row.arm for row in rows}


async def insert_failure(conn: AsyncConnection, session: Session, failure: FailureRow) -> None:
    """Record why the session's current run failed."""
    plan = session.plan.roles.get(failure.role) if session.plan else None
    values: dict[str, Any] = {
        "run_id": session.run_id,
        "pipeline_run_id": session.pipeline_run_id,
        "user_id": session.user_id,
        "project_id": session.project_id,
        "agents": json.dumps(list(session.agents)),
        "stage": failure.stage,
        "code": failure.code,
        "role": failure.role,
        "runtime": plan.runtime if plan else session.runtime_type,
        "framework": plan.framework if plan else None,
        "family": failure.family,
        "signature": failure.signature,
        "particulars": json.dumps(dict(failure.particulars)),
        "planned": failure.planned.model_dump_json() if failure.planned else None,
        "remedied": failure.remedied,
    }
    await conn.execute(_INSERT_FAILURE, values)


async def output_of_stage(conn: AsyncConnection, session_id: UUID, run_id: UUID, stage: str, limit: int = 60) -> str:
    """The last lines that commands printed in a stage of a run."""
    values = {"session_id": session_id, "run_id": run_id, "stage": stage, "limit": limit}
    return "\n".join(row.line or "" for row in await conn.execute(_OUTPUT, values))


async def same_failure(
    conn: AsyncConnection, failure_ids: Sequence[int], role: str, signature: str, particulars: Mapping[str, str]
) -> bool:
    """Whether one of the recorded failures is the same as this one."""
    rows = await conn.execute(_SAME, {"ids": list(failure_ids)})
    return any((row.role, row.signature, row.particulars) == (role, signature, dict(particulars)) for row in rows)


async def resolve(conn: AsyncConnection, user_id: str, project_id: str, needed: Sequence[int]) -> None:
    """Close the project's failures except those of the same kind as `needed`, whose remedies the run had."""
    await conn.execute(_RESOLVE, {"user_id": user_id, "project_id": project_id, "needed": list(needed)})


async def lock_lessons(conn: AsyncConnection, pipeline_run_id: str) -> None:
    """Lock the rows of the run's lessons until the end of the transaction."""
    await conn.execute(_LOCK_LESSONS, {"pipeline_run_id": pipeline_run_id})


async def settle(conn: AsyncConnection, pipeline_run_id: str, *, failed: bool) -> list[int]:
    """Record how the run ended for each of its lessons, in both arms; the lessons."""
    rows = await conn.execute(_SETTLE, {"pipeline_run_id": pipeline_run_id, "failed": failed})
    return sorted(row.lesson_id for row in rows)


async def keep_or_decay(conn: AsyncConnection, pipeline_run_id: str, days: int) -> None:
    """Postpone or bring forward the expiry of the run's lessons, by their verified outcomes."""
    await conn.execute(_KEEP_OR_DECAY, {"pipeline_run_id": pipeline_run_id, "days": days})


async def withdraw(conn: AsyncConnection, lesson_id: int, reason: str) -> bool:
    """Put a lesson out of use; returns whether it was in use."""
    row = (await conn.execute(_WITHDRAW, {"lesson_id": lesson_id, "reason": reason})).one_or_none()
    return row is not None
