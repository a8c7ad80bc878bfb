"""SQL of the learning room. The figures (times_applied, scores, agent_learning_stats) are kept by triggers."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

#: One recorder at a time for a run: (lesson, run) pairs may repeat in the table, so no index keeps them apart.
_LOCK_RUN = text("SELECT pg_advisory_xact_lock(hashtextextended('lesson applications of run ' || :pipeline_run_id, 0))")

#: In the order of the lessons' ids: two runs that begin at once lock rows in the same order.
_RECORD = text("""
    INSERT INTO agent_lesson_applications (lesson_id, agent_name, pipeline_run_id, project_name)
    SELECT lesson.id, lesson.agent_name, CAST(:pipeline_run_id AS VARCHAR), :project_name
      FROM agent_lessons AS lesson
     WHERE lesson.agent_name = ANY(:agents)
       AND lesson.is_active
       AND (lesson.expires_at IS NULL OR lesson.expires_at > NOW())
       AND NOT EXISTS (SELECT FROM agent_lesson_applications AS recorded
                        WHERE recorded.pipeline_run_id = :pipeline_run_id AND recorded.lesson_id = lesson.id)
     ORDER BY lesson.id
""")

#: Outcomes that are verified already, by an earlier call or by a person, stay as they are.
_VERIFY = text("""
    UPDATE agent_lesson_applications AS application
       SET prevented_issue = lesson.source_issue_type IS DISTINCT FROM :failure_code,
           outcome_notes = CASE WHEN lesson.source_issue_type = :failure_code THEN :occurred
                                ELSE replace(:prevented, '{issue}', lesson.source_issue_type) END,
           outcome_verified_at = NOW()
      FROM agent_lessons AS lesson
     WHERE lesson.id = application.lesson_id
       AND application.pipeline_run_id = :pipeline_run_id
       AND application.outcome_verified_at IS NULL
       AND (lesson.source_issue_type = :failure_code OR lesson.source_issue_type = ANY(:ruled_out))
""")


async def insert_applications(
    conn: AsyncConnection, *, pipeline_run_id: str, agents: Sequence[str], project_name: str
) -> int:
    """Record the active, unexpired lessons of the agents that the run does not have yet; answers how many."""
    await conn.execute(_LOCK_RUN, {"pipeline_run_id": pipeline_run_id})
    result = await conn.execute(
        _RECORD, {"pipeline_run_id": pipeline_run_id, "project_name": project_name, "agents": list(agents)}
    )
    return result.rowcount


async def set_outcomes(
    conn: AsyncConnection,
    *,
    pipeline_run_id: str,
    failure_code: str | None,
    ruled_out: Sequence[str],
    occurred: str,
    prevented: str,
) -> int:
    """Set the outcome of the run's unverified applications; answers how many.

    A lesson about `failure_code` did not prevent it, one about a code in `ruled_out` did. `occurred` and `prevented`
    are the notes; `{issue}` in the latter stands for the lesson's issue.
    """
    result = await conn.execute(
        _VERIFY,
        {
            "pipeline_run_id": pipeline_run_id,
            "failure_code": failure_code,
            "ruled_out": list(ruled_out),
            "occurred": occurred,
            "prevented": prevented,
        },
    )
    return result.rowcount
