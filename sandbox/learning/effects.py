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
    counts = {row["lesson_id"]: row for row in await store.arms(db, ids)}
    return [row | {"trigger": triggers.get(row["id"]), "effect": _effect(counts.get(row["id"]))} for row in rows]


def _effect(row: Row | None) -> dict[str, Any]:
    """The failure rate of runs without the lesson minus that of runs with it, and what it tells."""
    named = row or dict.fromkeys(("applied", "applied_failed", "withheld", "withheld_failed"), 0)
    counts = Counts(named["applied"], named["applied_failed"], named["withheld"], named["withheld_failed"])
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
