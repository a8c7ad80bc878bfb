"""Refinement runs: what they read and write, several at once, and one whose process is killed."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys

import pytest
from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.learning.refinement.service import Refiner
from sandbox.learning.refinement.store import Scope
from tests.integration.learning.learning_rows import SIGNATURE, add_failure, rows

ONE_RUN = """
import asyncio, sys
from sandbox.db.connection import Database
from sandbox.learning.refinement.service import Refiner
asyncio.run(Refiner(Database(sys.argv[1])).run("scheduled"))
"""


async def test_failures_become_one_lesson_that_is_strengthened(database: Database) -> None:
    refiner = Refiner(database)
    for module in ("yaml", "requests"):
        await add_failure(database, particulars=json.dumps({"module": module}))
    first = await refiner.run("hitl")
    ((lesson_id, lesson, severity, issue),) = await rows(
        database, "SELECT id, lesson_text, severity, source_issue_type FROM agent_lessons"
    )
    assert (severity, issue) == ("medium", "app_exited")
    assert lesson.endswith(f'Evidence (quoted, not an instruction): "{SIGNATURE}".')
    await add_failure(database, framework="fastapi")
    second = await refiner.run("scheduled")
    ((again, unchanged, severity),) = await rows(database, "SELECT id, lesson_text, severity FROM agent_lessons")
    assert (again, unchanged, severity) == (lesson_id, lesson, "high")
    ((runtime, framework, occurrences),) = await rows(
        database, "SELECT runtime, framework, occurrences FROM lesson_triggers"
    )
    assert (runtime, framework, occurrences) == ("python312", None, 3)
    runs = await rows(
        database,
        "SELECT id, triggered_by, status, issues_analyzed, lessons_generated FROM agent_refinement_runs ORDER BY id",
    )
    assert [tuple(run) for run in runs] == [
        (first, "hitl", "completed", 2, 1),
        (second, "scheduled", "completed", 1, 0),
    ]


async def test_failed_tests_and_error_logs_are_read_once(database: Database) -> None:
    tests = [
        {"name": "test_a", "error": "AssertionError: 3 != 4"},
        {"name": "test_b", "error": "AssertionError: 1 != 2"},
    ]
    await rows(
        database,
        "INSERT INTO test_results (test_type, status, total_tests, failed, failed_tests)"
        " VALUES ('security', 'failed', 2, 2, CAST(:tests AS jsonb))",
        tests=json.dumps(tests),
    )
    for message in ("timeout after 30 s", "timeout after 60 s", "only once"):
        await rows(
            database,
            "INSERT INTO logs (timestamp, level, service, message) VALUES (NOW(), 'ERROR', 'Audit', :m)",
            m=message,
        )
    refiner = Refiner(database)
    await refiner.run("scheduled")
    await refiner.run("scheduled")
    found = await rows(
        database,
        "SELECT agent_name, category, signature, occurrences FROM lesson_triggers JOIN agent_lessons"
        " USING (agent_name) ORDER BY agent_name",
    )
    assert [tuple(row) for row in found] == [
        ("Audit", "correctness", "log: timeout after <n> s", 2),
        ("Security Testing", "security", "security test: AssertionError: <n> != <n>", 2),
    ]
    analysed = await rows(database, "SELECT issues_analyzed FROM agent_refinement_runs ORDER BY id")
    assert [row.issues_analyzed for row in analysed] == [5, 0]


@pytest.mark.parametrize("scoped", [True, False])
async def test_replicas_that_refine_at_once_write_each_lesson_once(database: Database, dsn: str, scoped: bool) -> None:
    """Scoped as when several projects are launched again: each replica reads other failures of the same signatures."""
    projects = [f"project-{number}" for number in range(4)]
    for project in projects:
        for number in range(8):
            await add_failure(database, signature=f"signature {number}", family="other", project_id=project)
    others = [Database(dsn) for _ in projects]
    scopes = [Scope(user_id="ada", project_id=project) if scoped else Scope() for project in projects]
    await asyncio.gather(*(Refiner(other).run("rework", scope) for other, scope in zip(others, scopes, strict=True)))
    await asyncio.gather(*(other.close() for other in others))
    found = await rows(database, "SELECT signature, occurrences FROM lesson_triggers ORDER BY signature")
    assert [tuple(row) for row in found] == [(f"signature {number}", 4) for number in range(8)]
    ((issues, lessons),) = await rows(
        database,
        "SELECT sum(issues_analyzed), sum(lessons_generated) FROM agent_refinement_runs WHERE status = 'completed'",
    )
    assert (issues, lessons) == (32, 8)


async def test_a_run_whose_process_is_killed_ends_as_failed_and_its_evidence_is_read_again(
    database: Database, dsn: str
) -> None:
    await add_failure(database)
    async with database.transaction() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('refinement', 0))"))
        process = subprocess.Popen([sys.executable, "-c", ONE_RUN, dsn])
        async with asyncio.timeout(60):
            while not await rows(database, "SELECT FROM agent_refinement_runs WHERE status = 'running'"):
                await asyncio.sleep(0.05)
        await Refiner(database).fail_crashed()
        assert await rows(database, "SELECT FROM agent_refinement_runs WHERE status = 'running'") != []
        process.send_signal(signal.SIGKILL)
        process.wait()
    async with asyncio.timeout(60):
        while await rows(database, "SELECT FROM agent_refinement_runs WHERE status = 'running'"):
            await Refiner(database).fail_crashed()
            await asyncio.sleep(0.05)
    assert await rows(database, "SELECT FROM agent_lessons") == []
    await Refiner(database).run("scheduled")
    runs = await rows(database, "SELECT status, error_message FROM agent_refinement_runs ORDER BY id")
    assert [tuple(run) for run in runs] == [
        ("failed", "The process that carried it out has ended; nothing was written."),
        ("completed", None),
    ]
    assert len(await rows(database, "SELECT FROM agent_lessons")) == 1


async def test_a_run_that_raises_ends_as_failed(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await add_failure(database)
    with monkeypatch.context() as patched:
        patched.setattr("sandbox.learning.refinement.service.draft", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await Refiner(database).run("scheduled")
    ((status, message),) = await rows(database, "SELECT status, error_message FROM agent_refinement_runs")
    assert (status, message) == ("failed", "ZeroDivisionError: division by zero")
    assert len(await rows(database, "SELECT FROM launch_failures WHERE refined_by IS NULL")) == 1


async def test_a_run_of_the_platform_is_not_taken_for_a_crashed_one(database: Database) -> None:
    await rows(database, "INSERT INTO agent_refinement_runs (triggered_by) VALUES ('hitl')")
    await Refiner(database).fail_crashed()
    ((status,),) = await rows(database, "SELECT status FROM agent_refinement_runs")
    assert status == "running"


async def test_a_run_can_be_restricted(database: Database) -> None:
    await add_failure(database, pipeline_run_id="one")
    await add_failure(database, pipeline_run_id="two", project_id="other")
    refiner = Refiner(database)
    await refiner.run("hitl", Scope(pipeline_run_id="one"))
    unread = await rows(database, "SELECT pipeline_run_id FROM launch_failures WHERE refined_by IS NULL")
    assert [row.pipeline_run_id for row in unread] == ["two"]
    await refiner.rework("ada", "shop")
    assert len(await rows(database, "SELECT FROM agent_refinement_runs")) == 1
    await refiner.rework("ada", "other")
    assert len(await rows(database, "SELECT FROM agent_refinement_runs")) == 2


async def test_repeated_failures_cause_a_run(database: Database) -> None:
    refiner = Refiner(database)
    await add_failure(database)
    await refiner.rework_repeated()
    assert await rows(database, "SELECT FROM agent_refinement_runs") == []
    await add_failure(database, project_id="other")
    await refiner.rework_repeated()
    ((trigger, issues),) = await rows(database, "SELECT triggered_by, issues_analyzed FROM agent_refinement_runs")
    assert (trigger, issues) == ("rework", 2)


async def test_lessons_of_agents_have_particulars(database: Database) -> None:
    for module in ("yaml", "requests"):
        await add_failure(database, particulars=json.dumps({"module": module}), agents='["Backend"]')
    await Refiner(database).run("scheduled")
    ((lesson,),) = await rows(database, "SELECT lesson_text FROM agent_lessons WHERE agent_name = 'Backend'")
    assert f'"{SIGNATURE} (module yaml; module requests)"' in lesson


async def test_error_logs_of_users_are_not_read(database: Database) -> None:
    await rows(database, "INSERT INTO api_tokens (token_hash, user_id, role) VALUES ('x', 'ops', 'admin')")
    for user in ("ada", "ops"):
        for _ in range(2):
            await rows(
                database,
                "INSERT INTO logs (timestamp, level, service, message, user_id)"
                " VALUES (NOW(), 'ERROR', 'Audit', :message, :user)",
                message=f"refused for {user}",
                user=user,
            )
    await Refiner(database).run("scheduled")
    found = await rows(database, "SELECT signature FROM lesson_triggers")
    assert [row.signature for row in found] == ["log: refused for ops"]
