"""The lessons of a prompt: few, ranked by fit, within a budget, and withheld by lot from some runs."""

from __future__ import annotations

from sandbox.db.connection import Database
from sandbox.learning import store
from sandbox.learning.applications import record_applications
from sandbox.learning.prompts import About, Budget, for_prompt, for_run
from tests.integration.learning.learning_rows import rows

AGENT = "Backend"


async def add(database: Database, lesson: str, severity: str = "medium", **trigger: str) -> int:
    values = {"agent_name": AGENT, "lesson_text": lesson, "severity": severity, "category": "correctness"}
    whole = {name: trigger.get(name) for name in ("signature", "runtime", "framework", "project_id")}
    return int((await store.insert_lesson(database, values, whole if trigger else None))["id"])


async def chosen(database: Database, about: About, budget: Budget | None = None) -> list[str]:
    prompt = await for_prompt(database, AGENT, about, budget or Budget())
    return [row["lesson_text"] for row in prompt.lessons]


async def test_a_lesson_of_another_run_is_left_out(database: Database) -> None:
    await add(database, "node", runtime="node20")
    await add(database, "python", runtime="python312")
    await add(database, "shop", project_id="shop")
    await add(database, "all")
    assert set(await chosen(database, About(runtime="python312", project_id="blog"))) == {"python", "all"}
    assert set(await chosen(database, About(), Budget(lessons=9))) == {"node", "python", "shop", "all"}


async def test_the_best_fit_comes_first_and_three_are_enough(database: Database) -> None:
    await add(database, "severe", "critical")
    await add(database, "runtime", runtime="python312")
    await add(database, "framework", framework="flask")
    await add(database, "signature", "low", signature="s")
    about = About("python312", "flask", "shop", "s")
    assert await chosen(database, about) == ["signature", "framework", "runtime"]
    assert await chosen(database, about, Budget(lessons=9)) == ["signature", "framework", "runtime", "severe"]


async def test_the_text_stays_within_the_budget(database: Database) -> None:
    await add(database, "x" * 500, "critical")
    await add(database, "short", "low")
    prompt = await for_prompt(database, AGENT, About(), Budget(characters=200))
    assert [row["lesson_text"] for row in prompt.lessons] == ["short"]
    assert len(prompt.text) <= 200


async def test_the_lot_withholds_lessons_from_a_run_once(database: Database) -> None:
    for number in range(20):
        await add(database, f"lesson {number}")
    budget = Budget(lessons=20, characters=10_000)
    first = await for_run(database, AGENT, About(), budget, pipeline_run_id="run", withheld_percent=50)
    again = await for_run(database, AGENT, About(), budget, pipeline_run_id="run", withheld_percent=50)
    assert (again.text, again.withheld) == (first.text, first.withheld)
    assert 0 < len(first.withheld) < 20
    given = {row["id"] for row in first.lessons}
    assert given.isdisjoint(first.withheld)
    applied = await rows(database, "SELECT lesson_id FROM agent_lesson_applications")
    assert {row.lesson_id for row in applied} == given
    async with database.transaction() as connection:
        added = await record_applications(
            connection, pipeline_run_id="run", agents=[AGENT], project_name="p", runtime="python312"
        )
    assert added == 0
