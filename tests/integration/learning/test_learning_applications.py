"""Lessons of a run: recorded once when it starts, verified when it ends, and counted in the statistics."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database
from sandbox.domain.stages import PROJECT_STAGES, StageName
from sandbox.learning.applications import record_applications, verify_outcomes

RUN = "run-1"
S = StageName


async def add_lesson(
    connection: AsyncConnection,
    issue: str | None,
    *,
    agent: str = "Backend",
    active: bool = True,
    expires_at: datetime | None = None,
) -> int:
    return await connection.scalar(
        text(
            "INSERT INTO agent_lessons"
            " (agent_name, lesson_text, severity, category, source_issue_type, is_active, expires_at)"
            " VALUES (:agent, :lesson, 'high', 'correctness', :issue, :active, :expires_at) RETURNING id"
        ),
        {"agent": agent, "lesson": f"on {issue}", "issue": issue, "active": active, "expires_at": expires_at},
    )


async def record(database: Database, *agents: str, run: str = RUN) -> int:
    async with database.transaction() as connection:
        return await record_applications(
            connection, pipeline_run_id=run, agents=agents, project_name="shop", runtime="python312"
        )


async def verify(
    database: Database,
    *,
    failure: str | None = None,
    failed_stage: StageName | None = None,
    reached: set[StageName],
    run: str = RUN,
) -> int:
    async with database.transaction() as connection:
        return await verify_outcomes(
            connection, pipeline_run_id=run, failure_code=failure, failed_stage=failed_stage, reached_stages=reached
        )


async def outcomes(database: Database, run: str = RUN) -> dict[str | None, bool | None]:
    """Whether each lesson, by its issue, prevented it; checks that the other two columns are consistent."""
    async with database.transaction() as connection:
        rows = await connection.execute(
            text(
                "SELECT source_issue_type, prevented_issue, outcome_notes, outcome_verified_at"
                " FROM agent_lesson_applications AS a JOIN agent_lessons AS l ON l.id = a.lesson_id"
                " WHERE pipeline_run_id = :run"
            ),
            {"run": run},
        )
        found = {}
        for issue, prevented, notes, verified_at in rows:
            assert (prevented is None) == (notes is None) == (verified_at is None)
            assert notes is None or issue in notes
            found[issue] = prevented
        return found


async def test_active_unexpired_lessons_of_the_runs_agents_are_recorded(database: Database) -> None:
    now = datetime.now(UTC)
    async with database.transaction() as connection:
        lessons: dict[str, dict[str, Any]] = {
            "port_not_opened": {},
            "app_exited": {"expires_at": now + timedelta(hours=1)},
            "disk_full": {"agent": "Frontend"},
            "expired": {"expires_at": now - timedelta(seconds=1)},
            "put out of use": {"active": False},
            "another agent's": {"agent": "Audit"},
        }
        for issue, options in lessons.items():
            await add_lesson(connection, issue, **options)
    assert await record(database, "Backend", "Frontend", "Unknown") == 3
    assert await outcomes(database) == {"port_not_opened": None, "app_exited": None, "disk_full": None}
    async with database.transaction() as connection:
        rows = await connection.execute(text("SELECT agent_name, project_name FROM agent_lesson_applications"))
        assert sorted(rows.all()) == [("Backend", "shop"), ("Backend", "shop"), ("Frontend", "shop")]


async def test_recording_again_adds_nothing(database: Database) -> None:
    async with database.transaction() as connection:
        await add_lesson(connection, "port_not_opened")
    assert await record(database, "Backend") == 1
    assert await record(database, "Backend") == 0
    assert await record(database, "Backend", run="run-2") == 1
    assert await record(database) == 0


async def test_concurrent_recording_adds_each_once(database: Database) -> None:
    async with database.transaction() as connection:
        for _ in range(5):
            await add_lesson(connection, "port_not_opened")
    counts = await asyncio.gather(*(record(database, "Backend") for _ in range(8)))
    assert sorted(counts) == [0] * 7 + [5]


async def test_a_failed_run_verifies_lessons_of_the_stages_it_reached(database: Database) -> None:
    async with database.transaction() as connection:
        for issue in ("plan_invalid", "dependency_install_failed", "dependency_install_timeout", "port_not_opened"):
            await add_lesson(connection, issue)
        for other in ("out_of_memory", "sql_injection", None):
            await add_lesson(connection, other)
    await record(database, "Backend")
    reached = {S.PLAN, S.NETWORK, S.CONTAINERS, S.WORKSPACE, S.DEPENDENCIES}
    end: dict[str, Any] = {"failure": "dependency_install_failed", "failed_stage": S.DEPENDENCIES, "reached": reached}
    assert await verify(database, **end) == 2
    assert await verify(database, **end) == 0
    assert await outcomes(database) == {
        "plan_invalid": True,
        "dependency_install_failed": False,
        "dependency_install_timeout": None,
        "port_not_opened": None,
        "out_of_memory": None,
        "sql_injection": None,
        None: None,
    }


async def test_a_completed_run_verifies_lessons_of_every_stage(database: Database) -> None:
    async with database.transaction() as connection:
        for issue in ("plan_invalid", "port_not_opened", "out_of_memory", "sql_injection"):
            await add_lesson(connection, issue)
    await record(database, "Backend")
    assert await verify(database, reached=set(PROJECT_STAGES)) == 3
    assert await outcomes(database) == {
        "plan_invalid": True,
        "port_not_opened": True,
        "out_of_memory": True,
        "sql_injection": None,
    }


async def test_skipped_stages_verify_no_lesson(database: Database) -> None:
    async with database.transaction() as connection:
        for issue in ("dependency_install_failed", "app_start_failed"):
            await add_lesson(connection, issue)
    await record(database, "Backend")
    assert await verify(database, reached=set(PROJECT_STAGES) - {S.DEPENDENCIES}) == 1
    assert await outcomes(database) == {"dependency_install_failed": None, "app_start_failed": True}


async def test_a_failure_that_any_stage_can_have(database: Database) -> None:
    async with database.transaction() as connection:
        for issue in ("out_of_memory", "disk_full", "dependency_install_failed"):
            await add_lesson(connection, issue)
    await record(database, "Backend")
    reached = {S.PLAN, S.NETWORK, S.CONTAINERS, S.WORKSPACE, S.DEPENDENCIES}
    await verify(database, failure="out_of_memory", failed_stage=S.DEPENDENCIES, reached=reached)
    assert await outcomes(database) == {"out_of_memory": False, "disk_full": None, "dependency_install_failed": None}


async def test_a_cancelled_run_verifies_lessons_of_completed_stages(database: Database) -> None:
    async with database.transaction() as connection:
        for issue in ("plan_invalid", "network_failed", "out_of_memory"):
            await add_lesson(connection, issue)
    await record(database, "Backend")
    await verify(database, failed_stage=S.NETWORK, reached={S.PLAN, S.NETWORK})
    assert await outcomes(database) == {"plan_invalid": True, "network_failed": None, "out_of_memory": None}


async def test_an_outcome_set_by_a_person_is_not_changed(database: Database) -> None:
    async with database.transaction() as connection:
        await add_lesson(connection, "port_not_opened")
    await record(database, "Backend")
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "UPDATE agent_lesson_applications"
                " SET prevented_issue = FALSE, outcome_notes = 'port_not_opened: seen', outcome_verified_at = NOW()"
            )
        )
    assert await verify(database, reached=set(PROJECT_STAGES)) == 0
    assert await outcomes(database) == {"port_not_opened": False}


async def test_statistics_follow_the_outcomes(database: Database) -> None:
    async with database.transaction() as connection:
        lesson = await add_lesson(connection, "port_not_opened")
    for run in ("a", "b", "c", "d"):
        await record(database, "Backend", run=run)
    await verify(database, run="a", reached=set(PROJECT_STAGES))
    await verify(database, run="b", reached=set(PROJECT_STAGES))
    await verify(database, run="c", reached=set(PROJECT_STAGES), failure="port_not_opened", failed_stage=S.HEALTH)
    async with database.transaction() as connection:
        row = await connection.execute(
            text("SELECT times_applied, effectiveness_score FROM agent_lessons WHERE id = :id"), {"id": lesson}
        )
        assert row.one() == (4, 2 / 3)
        row = await connection.execute(
            text(
                "SELECT total_lessons_learned, active_lessons, total_applications, successful_preventions,"
                " overall_effectiveness FROM agent_learning_stats WHERE agent_name = 'Backend'"
            )
        )
        assert row.one() == (1, 1, 4, 2, 0.5)


async def test_runs_that_start_and_end_at_once_do_not_lose_or_block_each_other(database: Database) -> None:
    agents = ["Backend", "Frontend", "Audit"]
    async with database.transaction() as connection:
        for number in range(12):
            await add_lesson(connection, "port_not_opened", agent=agents[number % 3])

    async def one(number: int) -> None:
        run = f"run-{number}"
        # Each with its agents in another order, and some with fewer.
        mine = (agents[number % 3 :] + agents[: number % 3])[: 3 - number % 2]
        await record(database, *mine, run=run)
        await verify(database, run=run, reached=set(PROJECT_STAGES))

    await asyncio.gather(*(one(number) for number in range(24)))
    async with database.transaction() as connection:
        differing = await connection.execute(
            text(
                "SELECT stats.agent_name FROM agent_learning_stats AS stats JOIN"
                " (SELECT agent_name, count(*) AS applied, count(*) FILTER (WHERE prevented_issue) AS prevented"
                "    FROM agent_lesson_applications GROUP BY agent_name) AS counted USING (agent_name)"
                " WHERE (total_applications, successful_preventions) <> (applied, prevented)"
            )
        )
        assert differing.all() == []
        assert await connection.scalar(text("SELECT sum(total_applications) FROM agent_learning_stats")) == 24 // 2 * 20
        assert await connection.scalar(text("SELECT min(effectiveness_score) FROM agent_lessons")) == 1.0
