"""What is known of lessons beside their documented columns: where they apply, and what they prevent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sandbox.db.connection import Database
from sandbox.db.tables import Row
from sandbox.learning import store
from sandbox.learning.estimate import ENOUGH, Counts, prevented


async def with_effects(db: Database, rows: Sequence[Row]) -> list[Row]:
    """Rows of `agent_lessons` with a `trigger` (None for a lesson of all runs) and an `effect` each."""
    ids = [row["id"] for row in rows]
    triggers = {row["lesson_id"]: row for row in await store.triggers(db, ids)}
    async with db.read() as connection:
        arms = await store.arms(connection, ids)
    none = Counts(0, 0, 0, 0)
    return [row | {"trigger": triggers.get(row["id"]), "effect": _effect(arms.get(row["id"], none))} for row in rows]


def _effect(counts: Counts) -> dict[str, Any]:
    """The failure rate of runs without the lesson minus that of runs with it, and what it tells."""
    interval = prevented(counts)
    if interval is None:
        verdict = "too_few_to_tell"
    elif interval.low > 0:
        verdict = "helps"
    elif interval.high < 0:
        verdict = "harms"
    else:
        verdict = "unclear"
    return {
        "applied": counts.applied,
        "applied_failed": counts.applied_failed,
        "withheld": counts.withheld,
        "withheld_failed": counts.withheld_failed,
        "needed_in_each_arm": ENOUGH,
        "prevented": interval.value if interval else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "verdict": verdict,
    }
