"""Both arms of the runs to which a lesson applies, the estimate from them, and what follows for the lesson."""

from __future__ import annotations

from datetime import datetime

from sandbox.db.connection import Database
from sandbox.learning.effects import with_effects
from sandbox.learning.launches import store
from sandbox.learning.launches.outcomes import Outcomes
from sandbox.records.alerts.store import Alerts
from tests.integration.learning.learning_rows import add_lesson, rows


async def add_runs(database: Database, lesson: int, arm: str, *, failed: int, succeeded: int) -> None:
    for number, outcome in enumerate([True] * failed + [False] * succeeded):
        await rows(
            database,
            "INSERT INTO lesson_assignments (pipeline_run_id, lesson_id, arm, channel, failed)"
            " VALUES (:run, :lesson, :arm, 'launch', :failed)",
            run=f"{arm}-{lesson}-{number}",
            lesson=lesson,
            arm=arm,
            failed=outcome,
        )


async def effect(database: Database, lesson: int) -> dict[str, object]:
    (whole,) = await with_effects(database, [{"id": lesson}])
    return dict(whole["effect"])


async def test_the_estimate_stands_beside_the_documented_columns(database: Database) -> None:
    lesson = await add_lesson(database)
    await add_runs(database, lesson, "applied", failed=6, succeeded=54)
    await add_runs(database, lesson, "withheld", failed=6, succeeded=3)
    few = await effect(database, lesson)
    assert (few["verdict"], few["prevented"], few["withheld"]) == ("too_few_to_tell", None, 9)
    await add_runs(database, lesson, "withheld-more", failed=0, succeeded=0)
    await rows(
        database,
        "INSERT INTO lesson_assignments (pipeline_run_id, lesson_id, arm, channel, failed)"
        " VALUES ('one more', :lesson, 'withheld', 'launch', TRUE)",
        lesson=lesson,
    )
    enough = await effect(database, lesson)
    assert (enough["verdict"], enough["prevented"]) == ("helps", 0.7 - 0.1)


async def test_runs_without_a_known_end_are_not_counted(database: Database) -> None:
    lesson = await add_lesson(database)
    await rows(
        database,
        "INSERT INTO lesson_assignments (pipeline_run_id, lesson_id, arm, channel)"
        " VALUES ('r', :lesson, 'applied', 'launch')",
        lesson=lesson,
    )
    assert (await effect(database, lesson))["applied"] == 0


async def test_a_lesson_that_harms_is_put_out_of_use_with_an_alert(database: Database) -> None:
    harmful, harmless = await add_lesson(database), await add_lesson(database)
    for lesson, failed in ((harmful, 55), (harmless, 5)):
        await add_runs(database, lesson, "applied", failed=failed, succeeded=60 - failed)
        await add_runs(database, lesson, "withheld", failed=3, succeeded=27)
    outcomes = Outcomes(Alerts(notify=False))
    async with database.transaction() as connection:
        await outcomes.withdraw_harmful(connection, [harmful, harmless])
        await outcomes.withdraw_harmful(connection, [harmful, harmless])
    active = await rows(database, "SELECT id FROM agent_lessons WHERE is_active")
    assert [row.id for row in active] == [harmless]
    ((reason,),) = await rows(database, "SELECT withdrawn_reason FROM lesson_triggers WHERE withdrawn_at IS NOT NULL")
    assert reason == "55 of 60 runs with it failed, and 3 of 30 without it."
    ((source, cause),) = await rows(database, "SELECT source, metadata->>'cause' FROM alerts")
    assert (source, cause) == ("learning", f"lesson-harm:{harmful}")


async def test_a_lesson_that_helps_is_kept_and_one_that_does_not_decays(database: Database) -> None:
    helps, fails = await add_lesson(database), await add_lesson(database)
    for lesson, prevented in ((helps, True), (fails, False)):
        await rows(
            database,
            "INSERT INTO agent_lesson_applications (lesson_id, agent_name, pipeline_run_id, prevented_issue,"
            " outcome_verified_at) VALUES (:lesson, 'Backend', 'run', :prevented, NOW())",
            lesson=lesson,
            prevented=prevented,
        )
    async with database.transaction() as connection:
        await store.keep_or_decay(connection, "run", 90)
    found = await rows(database, "SELECT expires_at, NOW() AS now FROM agent_lessons ORDER BY id")
    days = [(row.expires_at.replace(tzinfo=None) - _naive(row.now)).total_seconds() / 86_400 for row in found]
    assert [round(day) for day in days] == [90, 5]


def _naive(time: datetime) -> datetime:
    return time.replace(tzinfo=None)
