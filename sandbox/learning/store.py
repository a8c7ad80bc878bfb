"""SQL of lessons, applications and refinement runs. Triggers maintain the counts, scores and agent_learning_stats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database
from sandbox.db.tables import Condition, Row, Table
from sandbox.learning.estimate import Counts

#: Serializes recording per run: (lesson, run) pairs may repeat in the table, so no unique index prevents duplicates.
_LOCK_RUN = text("SELECT pg_advisory_xact_lock(hashtextextended('lesson applications of run ' || :pipeline_run_id, 0))")

#: Ordered by the lessons' ids, so that two runs that start at once lock rows in the same order.
_RECORD = text("""
    INSERT INTO agent_lesson_applications (lesson_id, agent_name, pipeline_run_id, project_name)
    SELECT lesson.id, lesson.agent_name, CAST(:pipeline_run_id AS VARCHAR), CAST(:project_name AS VARCHAR)
      FROM agent_lessons AS lesson
     WHERE lesson.agent_name = ANY(:agents)
       AND lesson.is_active
       AND (lesson.expires_at IS NULL OR lesson.expires_at > NOW())
       AND NOT EXISTS (SELECT FROM lesson_triggers AS trigger
                        WHERE trigger.lesson_id = lesson.id
                          AND (trigger.signature IS NOT NULL OR trigger.runtime <> CAST(:runtime AS VARCHAR)
                               OR trigger.project_id <> CAST(:project_name AS VARCHAR)))
       AND NOT EXISTS (SELECT FROM lesson_assignments AS drawn
                        WHERE drawn.pipeline_run_id = :pipeline_run_id AND drawn.lesson_id = lesson.id
                          AND drawn.arm = 'withheld')
       AND NOT EXISTS (SELECT FROM agent_lesson_applications AS recorded
                        WHERE recorded.pipeline_run_id = :pipeline_run_id AND recorded.lesson_id = lesson.id)
     ORDER BY lesson.id
""")

_RECORD_CHOSEN = text("""
    INSERT INTO agent_lesson_applications (lesson_id, agent_name, pipeline_run_id, project_name)
    SELECT lesson.id, lesson.agent_name, CAST(:pipeline_run_id AS VARCHAR), :project_name
      FROM agent_lessons AS lesson
     WHERE lesson.id = ANY(:lesson_ids)
       AND NOT EXISTS (SELECT FROM agent_lesson_applications AS recorded
                        WHERE recorded.pipeline_run_id = :pipeline_run_id AND recorded.lesson_id = lesson.id)
     ORDER BY lesson.id
""")

#: Leaves outcomes that an earlier call or a person has verified already.
_VERIFY = text("""
    UPDATE agent_lesson_applications AS application
       SET prevented_issue = NOT known.occurred,
           outcome_notes = CASE WHEN known.occurred THEN :occurred
                                ELSE replace(:prevented, '{issue}', known.source_issue_type) END,
           outcome_verified_at = NOW()
      FROM (SELECT lesson.id, lesson.source_issue_type,
                   coalesce(lesson.source_issue_type = :failure_code, FALSE)
                   AND coalesce(trigger.signature = :signature, TRUE) AS occurred
              FROM agent_lessons AS lesson
              LEFT JOIN lesson_triggers AS trigger ON trigger.lesson_id = lesson.id) AS known
     WHERE known.id = application.lesson_id
       AND application.pipeline_run_id = :pipeline_run_id
       AND application.outcome_verified_at IS NULL
       AND (known.occurred OR known.source_issue_type = ANY(:ruled_out))
""")


async def insert_applications(
    conn: AsyncConnection, *, pipeline_run_id: str, agents: Sequence[str], project_name: str, runtime: str
) -> int:
    """Record the active, unexpired lessons of the agents that are meant for such a run and that the run does not have
    yet; returns how many."""
    await conn.execute(_LOCK_RUN, {"pipeline_run_id": pipeline_run_id})
    values = {
        "pipeline_run_id": pipeline_run_id,
        "project_name": project_name,
        "agents": list(agents),
        "runtime": runtime,
    }
    return (await conn.execute(_RECORD, values)).rowcount


async def insert_chosen(
    conn: AsyncConnection, lesson_ids: Sequence[int], *, pipeline_run_id: str, project_name: str | None
) -> int:
    """Record these lessons as applied to the run, each once; returns how many the run did not have yet."""
    if not lesson_ids:
        return 0
    await conn.execute(_LOCK_RUN, {"pipeline_run_id": pipeline_run_id})
    values = {"pipeline_run_id": pipeline_run_id, "project_name": project_name, "lesson_ids": list(lesson_ids)}
    return (await conn.execute(_RECORD_CHOSEN, values)).rowcount


async def set_outcomes(
    conn: AsyncConnection,
    *,
    pipeline_run_id: str,
    failure_code: str | None,
    signature: str | None,
    ruled_out: Sequence[str],
    occurred: str,
    prevented: str,
) -> int:
    """Set the outcome of the run's unverified applications; returns how many.

    A lesson about `failure_code`, and about `signature` if its trigger names one, did not prevent it; one about a code
    in `ruled_out` did. `occurred` and `prevented` are the notes; `{issue}` in the latter stands for the lesson's issue.
    """
    result = await conn.execute(
        _VERIFY,
        {
            "pipeline_run_id": pipeline_run_id,
            "failure_code": failure_code,
            "signature": signature,
            "ruled_out": list(ruled_out),
            "occurred": occurred,
            "prevented": prevented,
        },
    )
    return result.rowcount


LESSONS = Table(
    "agent_lessons",
    (
        "id",
        "agent_name",
        "lesson_text",
        "severity",
        "category",
        "source_issue_type",
        "times_applied",
        "effectiveness_score",
        "is_active",
        "expires_at",
        "created_at",
        "updated_at",
    ),
    time="created_at",
    keys={"id": "bigint"},
)
APPLICATIONS = Table(
    "agent_lesson_applications",
    (
        "id",
        "lesson_id",
        "agent_name",
        "pipeline_run_id",
        "project_name",
        "prevented_issue",
        "outcome_notes",
        "outcome_verified_at",
    ),
    keys={"id": "bigint"},
    between="outcome_verified_at",
)
ASSIGNMENTS = Table(
    "lesson_assignments",
    ("pipeline_run_id", "lesson_id", "arm", "channel", "project_name", "assigned_at", "failed", "verified_at"),
    keys={"pipeline_run_id": "text", "lesson_id": "bigint"},
    between="assigned_at",
)
STATS = Table(
    "agent_learning_stats",
    (
        "agent_name",
        "total_lessons_learned",
        "active_lessons",
        "total_applications",
        "successful_preventions",
        "overall_effectiveness",
        "last_lesson_learned_at",
        "last_lesson_applied_at",
    ),
    keys={"agent_name": "text"},
    between="last_lesson_learned_at",
)
REFINEMENT_RUNS = Table(
    "agent_refinement_runs",
    (
        "id",
        "triggered_by",
        "pipeline_run_id",
        "issues_analyzed",
        "lessons_generated",
        "status",
        "started_at",
        "completed_at",
        "error_message",
    ),
    time="started_at",
    keys={"id": "bigint"},
)

_TRIGGERS = text("""
    SELECT lesson_id, signature, runtime, framework, project_id, remedy, written_by, wording_problem, occurrences,
           last_seen_at, withdrawn_reason, withdrawn_at
      FROM lesson_triggers WHERE lesson_id = ANY(:ids)
""")
_SET_TRIGGER = text("""
    INSERT INTO lesson_triggers (lesson_id, agent_name, signature, runtime, framework, project_id, written_by)
    VALUES (:lesson_id, :agent_name, :signature, :runtime, :framework, :project_id, 'person')
""")
_WORDED_BY_PERSON = text("UPDATE lesson_triggers SET worded_by_person = TRUE WHERE lesson_id = :lesson_id")
#: Runs with a known end to which these lessons applied, by arm.
_ARMS = text("""
    SELECT lesson_id,
           count(*) FILTER (WHERE arm = 'applied') AS applied,
           count(*) FILTER (WHERE arm = 'applied' AND failed) AS applied_failed,
           count(*) FILTER (WHERE arm = 'withheld') AS withheld,
           count(*) FILTER (WHERE arm = 'withheld' AND failed) AS withheld_failed
      FROM lesson_assignments WHERE lesson_id = ANY(:ids) AND failed IS NOT NULL
     GROUP BY lesson_id
""")

#: The condition for lessons that every caller may read: those that a person wrote, and those with a remedy. The others
#: quote evidence, which may be of another user's project.
FOR_ALL: Condition = (
    "NOT EXISTS (SELECT FROM lesson_triggers AS quoting WHERE quoting.lesson_id = agent_lessons.id"
    " AND quoting.written_by <> 'person' AND quoting.remedy IS NULL)",
    {},
)

#: Most lessons of an agent that are ranked for a prompt.
MAX_RANKED = 200

#: Lessons for such a run. The better a lesson's trigger fits what is known of the run the higher it ranks, then by
#: severity, then by effectiveness; a lesson without a verified outcome counts as 0.5.
_FOR_PROMPT = text(f"""
    SELECT {", ".join(f"lesson.{name}" for name in LESSONS.columns)}
      FROM agent_lessons AS lesson LEFT JOIN lesson_triggers AS trigger ON trigger.lesson_id = lesson.id
     WHERE lesson.agent_name = :agent_name AND is_active AND (expires_at IS NULL OR expires_at > NOW())
       AND (:everything OR trigger.lesson_id IS NULL OR trigger.written_by = 'person' OR trigger.remedy IS NOT NULL)
       AND coalesce(trigger.runtime = CAST(:runtime AS varchar), TRUE)
       AND coalesce(trigger.framework = CAST(:framework AS varchar), TRUE)
       AND coalesce(trigger.project_id = CAST(:project_id AS varchar), TRUE)
       AND coalesce(trigger.signature = CAST(:signature AS varchar), TRUE)
     ORDER BY 8 * coalesce(trigger.signature = :signature, FALSE)::int
              + 4 * coalesce(trigger.project_id = :project_id, FALSE)::int
              + 2 * coalesce(trigger.framework = :framework, FALSE)::int
              + coalesce(trigger.runtime = :runtime, FALSE)::int DESC,
              array_position(ARRAY['critical', 'high', 'medium', 'low'], severity::text),
              coalesce(effectiveness_score, 0.5) DESC, coalesce(trigger.occurrences, 0) DESC,
              created_at DESC, id DESC
     LIMIT {MAX_RANKED}
""")

_SET_OUTCOME = text(f"""
    UPDATE agent_lesson_applications
       SET prevented_issue = :prevented_issue, outcome_notes = :outcome_notes, outcome_verified_at = NOW()
     WHERE id = :id
    RETURNING {", ".join(APPLICATIONS.columns)}
""")


async def lessons_for_prompt(
    db: Database, agent_name: str, about: Mapping[str, str | None], *, everything: bool
) -> list[Row]:
    """The agent's active, unexpired lessons for a run of this runtime, framework, project and signature (each of which
    may be None: not known), the best first. Without `everything` only those that every caller may read."""
    async with db.read() as connection:
        rows = await connection.execute(_FOR_PROMPT, {"agent_name": agent_name, "everything": everything, **about})
        return [dict(row) for row in rows.mappings()]


async def set_outcome(db: Database, application_id: int, *, prevented_issue: bool, notes: str | None) -> Row | None:
    """Set or correct the outcome of one application; returns None if there is no such application."""
    values = {"id": application_id, "prevented_issue": prevented_issue, "outcome_notes": notes}
    async with db.transaction() as connection:
        row = (await connection.execute(_SET_OUTCOME, values)).mappings().first()
        return dict(row) if row else None


async def triggers(db: Database, lesson_ids: Sequence[int]) -> list[Row]:
    """To which runs these lessons apply; no row for a lesson of all runs."""
    async with db.read() as connection:
        return [dict(row) for row in (await connection.execute(_TRIGGERS, {"ids": list(lesson_ids)})).mappings()]


async def arms(connection: AsyncConnection, lesson_ids: Sequence[int]) -> dict[int, Counts]:
    """How many runs had and had not these lessons, and how many of them failed."""
    rows = await connection.execute(_ARMS, {"ids": list(lesson_ids)})
    return {row.lesson_id: Counts(row.applied, row.applied_failed, row.withheld, row.withheld_failed) for row in rows}


async def insert_lesson(db: Database, values: Mapping[str, Any], trigger: Mapping[str, Any] | None) -> Row:
    """Insert a lesson that a person wrote, with the runs to which it applies."""
    async with db.transaction() as connection:
        row = await LESSONS.insert(connection, values)
        if trigger:
            bound = {"lesson_id": row["id"], "agent_name": row["agent_name"], **trigger}
            await connection.execute(_SET_TRIGGER, bound)
        return row


async def change_lesson(db: Database, lesson_id: int, values: Mapping[str, Any]) -> Row | None:
    """Change a lesson at a person's request; None if there is no such lesson. A changed text is kept as it is."""
    async with db.transaction() as connection:
        row = await LESSONS.update(connection, {"id": lesson_id}, values)
        if row is not None and "lesson_text" in values:
            await connection.execute(_WORDED_BY_PERSON, {"lesson_id": lesson_id})
        return row


async def insert_row(db: Database, table: Table, values: Mapping[str, Any]) -> Row:
    """Insert a row and return it as stored."""
    async with db.transaction() as connection:
        return await table.insert(connection, values)


async def update_row(db: Database, table: Table, row_id: int, values: Mapping[str, Any]) -> Row | None:
    """Change a row and return it as stored, or None if there is no such row."""
    async with db.transaction() as connection:
        return await table.update(connection, {"id": row_id}, values)
