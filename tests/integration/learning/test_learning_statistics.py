"""The documented columns are exact whatever several writers do at once."""

from __future__ import annotations

import asyncio
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.db.connection import Database
from sandbox.learning import store
from sandbox.learning.applications import record_applications
from sandbox.learning.refinement.service import Refiner
from tests.integration.learning.learning_rows import DIFFERENCES, add_failure, add_lesson, rows

AGENTS = ("Backend", "Frontend", "Audit")


async def write(database: Database, lot: Random, number: int) -> None:
    """What one writer of the service or of the platform does, chosen by lot."""
    agent = lot.choice(AGENTS)
    for step in range(6):
        kind = lot.randrange(7)
        if kind == 0:
            await add_lesson(database, agent)
        elif kind == 1:
            order = lot.sample(AGENTS, 2)
            async with database.transaction() as connection:
                await record_applications(
                    connection, pipeline_run_id=f"run-{number}-{step}", agents=order, project_name="p", runtime="x"
                )
        elif kind == 2:
            for row in await rows(database, "SELECT id FROM agent_lesson_applications ORDER BY random() LIMIT 3"):
                await store.set_outcome(database, row.id, prevented_issue=lot.random() < 0.5, notes=None)
        elif kind == 3:
            values = {"is_active": lot.random() < 0.5}
            await store.update_row(database, store.LESSONS, lot.randrange(1, 12), values)
        elif kind == 4:
            await rows(database, f"DELETE FROM agent_lesson_applications WHERE id = {lot.randrange(1, 40)}")
        elif kind == 5:
            await rows(database, f"UPDATE agent_lessons SET agent_name = :a WHERE id = {lot.randrange(1, 12)}", a=agent)
        else:
            await add_failure(database, agents=f'["{agent}"]', signature=f"s{lot.randrange(3)}")
            await Refiner(database).run("scheduled")


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
async def test_a_recount_finds_no_difference(database: Database, seed: int) -> None:
    for agent in AGENTS:
        await add_lesson(database, agent)
        await rows(database, "UPDATE lesson_triggers SET signature = NULL WHERE lesson_id % 2 = 0")
    async with asyncio.timeout(120):
        await asyncio.gather(*(write(database, Random(seed + number), number) for number in range(8)))
    assert await rows(database, DIFFERENCES) == []
