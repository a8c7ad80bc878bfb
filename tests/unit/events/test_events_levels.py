"""The level of lines: in the database by the same rule as in Python."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from sandbox.domain.levels import WORDS, Level, level_word, words_from
from sandbox.events.store import LineFilter, read_lines
from tests.fakes.world import World, one_role

LINES = (
    "plain",
    "INFO: no error so far",
    "\x1b[33mWARN\x1b[0m deprecated",
    "2026-11-30 12:00:00,123 [ERROR] app: failed",
    "Traceback (most recent call last):",
    "errors go to stderr, information to stdout",
    f"{'x' * 101} error",
    "debug_mode=on DEBUG: started",
)


@pytest.mark.parametrize("level", list(WORDS))
async def test_lines_of_a_launch_are_found_by_level(world: World, level: Level) -> None:
    session = await world.launched(one_role())
    insert = text("""
        INSERT INTO session_events (session_id, seq, run_id, type, data)
        VALUES (:session_id, :seq, :run_id, 'log', CAST(:data AS jsonb))
    """)
    async with world.db.transaction() as conn:
        for number, line in enumerate(LINES):
            data = {"stage": "health", "role": "main", "stream": "stdout", "line": line}
            values = {"session_id": session.session_id, "run_id": session.run_id, "data": json.dumps(data)}
            await conn.execute(insert, values | {"seq": 1000 + number})
    wanted = LineFilter(None, None, None, None, "", level)
    found, _ = await read_lines(world.db, session.session_id, wanted, before=None, after=999, limit=100)
    expected = [line for line in LINES if level_word(line) in words_from(level)]
    assert [event.data["line"] for event in found] == expected


def test_the_first_word_that_names_a_level_decides() -> None:
    assert [level_word(line) for line in LINES] == [None, "info", "warn", "error", "traceback", None, None, "debug"]
