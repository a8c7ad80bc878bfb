"""Lessons as text for an agent's prompt: few, ranked by how well they fit the run, within a budget of characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sandbox.db.connection import Database
from sandbox.db.tables import Row
from sandbox.learning import store
from sandbox.learning.launches import store as launches

_HEADING = "Lessons from earlier work. Follow them:"
DEFAULT_LESSONS = 3
DEFAULT_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class About:
    """What a run is about. A field that is None is not known, and excludes no lesson."""

    runtime: str | None = None
    framework: str | None = None
    project_id: str | None = None
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a prompt has room for."""

    lessons: int = DEFAULT_LESSONS
    characters: int = DEFAULT_CHARACTERS


@dataclass(frozen=True, slots=True)
class Prompt:
    """The lessons of a prompt, their text, and the lessons that the lot withheld from it."""

    lessons: Sequence[Row]
    text: str
    withheld: Sequence[int] = ()


async def for_prompt(db: Database, agent_name: str, about: About, budget: Budget, *, everything: bool = True) -> Prompt:
    """The lessons that fit best, without recording anything. Without `everything` only those that every caller may
    read."""
    return _prompt(await _ranked(db, agent_name, about, budget, everything=everything))


async def for_run(
    db: Database, agent_name: str, about: About, budget: Budget, *, pipeline_run_id: str, withheld_percent: float
) -> Prompt:
    """The lessons that fit best, recorded as applied to the run; a share of them, drawn by lot, is withheld.

    A withheld lesson is not replaced by the next one, so that the runs differ in this lesson only. May be called again
    for the same run: the lot is drawn once.
    """
    chosen = await _ranked(db, agent_name, about, budget, everything=True)
    async with db.transaction() as conn:
        arms = await launches.assign(
            conn,
            sorted(row["id"] for row in chosen),
            pipeline_run_id=pipeline_run_id,
            project_name=about.project_id,
            channel="prompt",
            withheld_percent=withheld_percent,
        )
        given = [row for row in chosen if arms[row["id"]] == "applied"]
        await store.insert_chosen(
            conn,
            sorted(row["id"] for row in given),
            pipeline_run_id=pipeline_run_id,
            project_name=about.project_id,
        )
    return _prompt(given, [row["id"] for row in chosen if arms[row["id"]] == "withheld"])


async def _ranked(db: Database, agent_name: str, about: About, budget: Budget, *, everything: bool) -> list[Row]:
    """The best lessons that fit into the budget; one that is too long is passed over."""
    left = budget.characters - len(_HEADING)
    chosen: list[Row] = []
    for row in await store.lessons_for_prompt(db, agent_name, asdict(about), everything=everything):
        length = len(_line(row)) + 1
        if len(chosen) < budget.lessons and length <= left:
            chosen.append(row)
            left -= length
    return chosen


def _prompt(lessons: Sequence[Row], withheld: Sequence[int] = ()) -> Prompt:
    text = "\n".join([_HEADING, *map(_line, lessons)]) if lessons else ""
    return Prompt(lessons, text, withheld)


def _line(row: Row) -> str:
    """One lesson on one line: with its white space collapsed, it cannot add lines that look like other lessons."""
    return f"- [{row['severity']}, {row['category']}] {' '.join(row['lesson_text'].split())}"
