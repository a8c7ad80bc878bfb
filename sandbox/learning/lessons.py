"""Lessons as text for an agent's prompt."""

from __future__ import annotations

from collections.abc import Sequence

from sandbox.db.connection import Database
from sandbox.db.tables import Row
from sandbox.learning import store

_HEADING = "Lessons from earlier work. Follow them:"


async def for_prompt(db: Database, agent_name: str, limit: int) -> list[Row]:
    """The active, unexpired lessons of this agent, the most severe and most effective first."""
    return await store.lessons_for_prompt(db, agent_name, limit)


def as_text(lessons: Sequence[Row]) -> str:
    """A heading and one line per lesson; empty without lessons.

    White space is collapsed, so that the text of a lesson cannot add lines that look like other lessons.
    """
    if not lessons:
        return ""
    lines = [f"- [{row['severity']}, {row['category']}] {' '.join(row['lesson_text'].split())}" for row in lessons]
    return "\n".join([_HEADING, *lines])
