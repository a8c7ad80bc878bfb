"""SQL of refinement runs: what they read, and the lessons that they write or strengthen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.learning.refinement.rules import Draft

#: Class of the advisory locks (RUN_LOCK, id of the run) that refinement runs under way hold.
RUN_LOCK = 8744
#: Most rows of each kind that one run reads. The next run reads the rest.
MAX_ROWS = 2_000

_NEXT_ID = text("SELECT nextval(pg_get_serial_sequence('agent_refinement_runs', 'id'))")
_LOCK_RUN = text(f"SELECT pg_advisory_xact_lock({RUN_LOCK}, :id)")
#: One run writes at a time, so that two never add a lesson for the same signature.
_LOCK_WRITING = text("SELECT pg_advisory_xact_lock(hashtextextended('refinement', 0))")
_BEGIN = text("""
    WITH begun AS (
        INSERT INTO agent_refinement_runs (id, triggered_by, pipeline_run_id)
        VALUES (:id, :triggered_by, :pipeline_run_id) RETURNING id)
    INSERT INTO refinement_work (refinement_run_id) SELECT id FROM begun
""")
_COMPLETE = text("""
    UPDATE agent_refinement_runs
       SET status = 'completed', completed_at = NOW(), issues_analyzed = :issues, lessons_generated = :lessons
     WHERE id = :id
""")
_FAIL = text("""
    UPDATE agent_refinement_runs SET status = 'failed', completed_at = NOW(), error_message = :message
     WHERE id = :id AND status = 'running'
""")
#: Runs of this service whose process has died: nothing holds their lock.
_FAIL_CRASHED = text(f"""
    UPDATE agent_refinement_runs AS run
       SET status = 'failed', completed_at = NOW(), error_message = :message
      FROM refinement_work AS work
     WHERE work.refinement_run_id = run.id AND run.status = 'running'
       AND NOT EXISTS (SELECT FROM pg_locks
                        WHERE locktype = 'advisory' AND classid = {RUN_LOCK} AND objid = run.id::oid AND objsubid = 2
                          AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
    RETURNING run.id
""")
_UNREAD_OF_PROJECT = text("""
    SELECT EXISTS (SELECT FROM launch_failures
                    WHERE user_id = :user_id AND project_id = :project_id AND refined_by IS NULL
                      AND resolved_at IS NULL)
""")
_REPEATED = text("""
    SELECT signature FROM launch_failures WHERE refined_by IS NULL GROUP BY signature HAVING count(*) >= :times LIMIT 1
""")
_FAILURES = text(f"""
    UPDATE launch_failures SET refined_by = :run
     WHERE failure_id = ANY (ARRAY(
        SELECT failure_id FROM launch_failures
         WHERE refined_by IS NULL
           AND (CAST(:project_id AS varchar) IS NULL OR (user_id = :user_id AND project_id = :project_id))
           AND (CAST(:pipeline_run_id AS varchar) IS NULL OR pipeline_run_id = :pipeline_run_id)
         ORDER BY failure_id LIMIT {MAX_ROWS} FOR UPDATE SKIP LOCKED))
    RETURNING code, family, signature, particulars, runtime, framework, agents
""")
_TESTS = text(f"""
    SELECT test_id, test_type, failed_tests FROM test_results AS result
     WHERE failed > 0 AND NOT EXISTS (SELECT FROM refined_test_results AS read WHERE read.test_id = result.test_id)
     ORDER BY test_id LIMIT {MAX_ROWS}
""")
_TESTS_READ = text("""
    INSERT INTO refined_test_results (test_id, refinement_run_id)
    SELECT test_id, :run FROM unnest(CAST(:ids AS integer[])) AS test_id ON CONFLICT DO NOTHING
""")
_LOGS_POSITION = text("SELECT transaction_id, log_id FROM refined_logs FOR UPDATE")
#: Lines of the platform; those of users are theirs alone. Below the oldest transaction that still runs, nothing is
#: committed any more.
_LOGS = text(f"""
    SELECT CAST(CAST(transaction_id AS text) AS bigint) AS transaction_id, log_id, service, message FROM logs
     WHERE (logs.transaction_id, log_id) > (CAST(CAST(:transaction_id AS text) AS xid8), CAST(:log_id AS bigint))
       AND logs.transaction_id < pg_snapshot_xmin(pg_current_snapshot())
       AND level IN ('ERROR', 'CRITICAL')
       AND (user_id IS NULL
            OR EXISTS (SELECT FROM api_tokens AS token WHERE token.user_id = logs.user_id AND token.role = 'admin'))
     ORDER BY logs.transaction_id, log_id LIMIT {MAX_ROWS}
""")
_LOGS_READ = text("UPDATE refined_logs SET transaction_id = :transaction_id, log_id = :log_id")
#: Locked in the order of the lessons' ids before the first write, as the ends of launches do.
_KNOWN = text("""
    SELECT trigger.lesson_id, trigger.agent_name, trigger.signature, trigger.occurrences
      FROM lesson_triggers AS trigger JOIN agent_lessons AS lesson ON lesson.id = trigger.lesson_id
     WHERE trigger.written_by <> 'person'
       AND (trigger.agent_name, trigger.signature) IN (
           SELECT * FROM unnest(CAST(:agents AS varchar[]), CAST(:signatures AS varchar[])))
     ORDER BY lesson.id FOR NO KEY UPDATE OF lesson
""")
_ADD = text("""
    INSERT INTO agent_lessons (agent_name, lesson_text, severity, category, source_issue_type, expires_at)
    VALUES (:agent_name, :text, :severity, :category, :issue_type, NOW() + make_interval(days => :days))
    RETURNING id
""")
_ADD_TRIGGER = text("""
    INSERT INTO lesson_triggers (lesson_id, agent_name, signature, runtime, framework, remedy, written_by, occurrences,
                                 refinement_run_id)
    VALUES (:lesson_id, :agent_name, :signature, :runtime, :framework, :remedy, 'rules', :occurrences, :run)
""")
#: A lesson that a person or its harm has put out of use stays so; one that has expired is used again.
_STRENGTHEN = text("""
    UPDATE agent_lessons
       SET severity = :severity,
           expires_at = greatest(expires_at, CAST(NOW() AS timestamp) + make_interval(days => :days))
     WHERE id = :lesson_id
""")
#: A trigger of one runtime or framework that is seen with another one applies to any.
_WIDEN = text("""
    UPDATE lesson_triggers
       SET occurrences = occurrences + :occurrences, last_seen_at = NOW(), refinement_run_id = :run,
           runtime = CASE WHEN runtime = :runtime THEN runtime END,
           framework = CASE WHEN framework = :framework THEN framework END
     WHERE lesson_id = :lesson_id
""")


_TO_WORD = text("""
    SELECT lesson.id, lesson.lesson_text
      FROM lesson_triggers AS trigger JOIN agent_lessons AS lesson ON lesson.id = trigger.lesson_id
     WHERE trigger.written_by = 'rules' AND NOT trigger.worded_by_person AND lesson.is_active
     ORDER BY trigger.wording_problem IS NOT NULL, lesson.id DESC LIMIT :limit
""")
#: Only if the text is still the one that was worded.
_WORD = text("""
    WITH worded AS (
        UPDATE agent_lessons SET lesson_text = :text WHERE id = :lesson_id AND lesson_text = :before RETURNING id)
    UPDATE lesson_triggers SET written_by = 'model', wording_problem = NULL
     WHERE lesson_id = (SELECT id FROM worded)
""")
_NOT_WORDED = text("UPDATE lesson_triggers SET wording_problem = :problem WHERE lesson_id = :lesson_id")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a run reads: all that is unread, or only launches of one project or one pipeline run."""

    user_id: str | None = None
    project_id: str | None = None
    pipeline_run_id: str | None = None

    @property
    def everything(self) -> bool:
        return self.project_id is None and self.pipeline_run_id is None


async def reserve(conn: AsyncConnection) -> int:
    """The id of a new run, with its lock held until the end of the transaction."""
    run_id = int((await conn.execute(_NEXT_ID)).scalar_one())
    await conn.execute(_LOCK_RUN, {"id": run_id})
    return run_id


async def begin(conn: AsyncConnection, run_id: int, triggered_by: str, pipeline_run_id: str | None) -> None:
    """Record that a run has begun."""
    values = {"id": run_id, "triggered_by": triggered_by, "pipeline_run_id": pipeline_run_id}
    await conn.execute(_BEGIN, values)


async def complete(conn: AsyncConnection, run_id: int, *, issues: int, lessons: int) -> None:
    """Record that a run has completed."""
    await conn.execute(_COMPLETE, {"id": run_id, "issues": issues, "lessons": lessons})


async def fail(conn: AsyncConnection, run_id: int, message: str) -> None:
    """Record that a run has failed."""
    await conn.execute(_FAIL, {"id": run_id, "message": message[:2000]})


async def fail_crashed(conn: AsyncConnection) -> list[int]:
    """Mark the runs whose process has died as failed; their ids."""
    message = "The process that carried it out has ended; nothing was written."
    return [row.id for row in await conn.execute(_FAIL_CRASHED, {"message": message})]


async def has_unread(conn: AsyncConnection, user_id: str, project_id: str) -> bool:
    """Whether the user's project has open failures that no run has read."""
    values = {"user_id": user_id, "project_id": project_id}
    return bool((await conn.execute(_UNREAD_OF_PROJECT, values)).scalar_one())


async def has_repeated(conn: AsyncConnection, times: int) -> bool:
    """Whether one signature has this many failures that no run has read."""
    return (await conn.execute(_REPEATED, {"times": times})).first() is not None


async def lock_writing(conn: AsyncConnection) -> None:
    """Wait until no other run writes lessons, and keep others from it until the end of the transaction."""
    await conn.execute(_LOCK_WRITING)


async def take_failures(conn: AsyncConnection, run_id: int, scope: Scope) -> list[Any]:
    """The unread failures of launches in the scope, which count as read by this run."""
    values = {
        "run": run_id,
        "user_id": scope.user_id,
        "project_id": scope.project_id,
        "pipeline_run_id": scope.pipeline_run_id,
    }
    return list(await conn.execute(_FAILURES, values))


async def take_tests(conn: AsyncConnection, run_id: int) -> list[Any]:
    """The unread test results with failed tests, which count as read by this run."""
    rows = list(await conn.execute(_TESTS))
    await conn.execute(_TESTS_READ, {"run": run_id, "ids": [row.test_id for row in rows]})
    return rows


async def take_logs(conn: AsyncConnection) -> list[Any]:
    """The unread error logs, which count as read now."""
    position = (await conn.execute(_LOGS_POSITION)).one()
    values = {"transaction_id": position.transaction_id, "log_id": position.log_id}
    rows = list(await conn.execute(_LOGS, values))
    if rows:
        await conn.execute(_LOGS_READ, {"transaction_id": rows[-1].transaction_id, "log_id": rows[-1].log_id})
    return rows


async def known_lessons(conn: AsyncConnection, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Any]:
    """The lessons that exist for these agents and signatures, locked."""
    values = {"agents": [agent for agent, _ in keys], "signatures": [signature for _, signature in keys]}
    return {(row.agent_name, row.signature): row for row in await conn.execute(_KNOWN, values)}


async def add(conn: AsyncConnection, run_id: int, draft: Draft, occurrences: int, days: int) -> int:
    """Write a new lesson; its id."""
    values: Mapping[str, Any] = {
        "agent_name": draft.agent_name,
        "text": draft.text,
        "severity": draft.severity,
        "category": draft.category,
        "issue_type": draft.issue_type,
        "days": days,
    }
    lesson_id = int((await conn.execute(_ADD, values)).scalar_one())
    trigger: Mapping[str, Any] = {
        "lesson_id": lesson_id,
        "agent_name": draft.agent_name,
        "signature": draft.signature,
        "runtime": draft.runtime,
        "framework": draft.framework,
        "remedy": draft.remedy,
        "occurrences": occurrences,
        "run": run_id,
    }
    await conn.execute(_ADD_TRIGGER, trigger)
    return lesson_id


async def strengthen(
    conn: AsyncConnection, run_id: int, lesson_id: int, draft: Draft, occurrences: int, days: int
) -> None:
    """Add occurrences to a lesson that is known. Its text stays."""
    await conn.execute(_STRENGTHEN, {"lesson_id": lesson_id, "severity": draft.severity, "days": days})
    values = {
        "lesson_id": lesson_id,
        "occurrences": occurrences,
        "run": run_id,
        "runtime": draft.runtime,
        "framework": draft.framework,
    }
    await conn.execute(_WIDEN, values)


async def to_word(conn: AsyncConnection, limit: int) -> list[Any]:
    """Lessons in the rules' words (id, lesson_text), those first that no model has been asked to word."""
    return list(await conn.execute(_TO_WORD, {"limit": limit}))


async def word(conn: AsyncConnection, lesson_id: int, *, before: str, text: str) -> None:
    """Store a model's wording of a lesson, unless its text has changed meanwhile."""
    await conn.execute(_WORD, {"lesson_id": lesson_id, "before": before, "text": text})


async def not_worded(conn: AsyncConnection, lesson_id: int, problem: str) -> None:
    """Record why a lesson has the rules' words although there is a model."""
    await conn.execute(_NOT_WORDED, {"lesson_id": lesson_id, "problem": problem[:500]})
