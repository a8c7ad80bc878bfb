"""Lessons as an agent's prompt gets them."""

from __future__ import annotations

from collections.abc import Sequence

from sandbox.db.connection import Database
from sandbox.db.tables import Row
from sandbox.learning import store

_HEADING = "Lessons from earlier work. Follow them:"


async def for_prompt(db: Database, agent_name: str, limit: int) -> list[Row]:
    """The lessons in force for this agent, the most severe and most effective first."""
    return await store.lessons_for_prompt(db, agent_name, limit)


def as_text(lessons: Sequence[Row]) -> str:
    """One line a lesson beneath a heading; empty without lessons. A lesson cannot add lines that look like others."""
    if not lessons:
        return ""
    lines = [f"- [{row['severity']}, {row['category']}] {' '.join(row['lesson_text'].split())}" for row in lessons]
    return "\n".join([_HEADING, *lines])
