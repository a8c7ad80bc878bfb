"""Whether PostgreSQL is taken for silent: after two attempts in a row, until one is answered."""

from __future__ import annotations

import asyncio
from typing import cast
from unittest.mock import AsyncMock

import pytest

from sandbox.db.connection import Database
from sandbox.db.liveness import Liveness
from sandbox.errors import DatabaseUnavailable


class Server:
    """Answers attempts to connect as given, then always. Notes after each attempt whether it is taken for silent."""

    def __init__(self, answers: list[bool]) -> None:
        self._answers = answers
        self.is_silent = False
        self.history: list[bool] = []
        self.done = asyncio.Event()

    async def accepts_connections(self, seconds: int) -> bool:
        self.history.append(self.is_silent)
        if not self._answers:
            self.done.set()
            return True
        return self._answers.pop(0)

    def silence(self) -> None:
        self.is_silent = True


@pytest.mark.parametrize(
    ("answers", "history"),
    [
        ([True, True], [False, False, False]),
        # As when this process was frozen itself.
        ([False, True, False, True], [False] * 5),
        ([False, False, False, True], [False, False, True, True, False]),
    ],
)
async def test_a_server_is_silent_after_two_attempts_until_it_answers(
    monkeypatch: pytest.MonkeyPatch, answers: list[bool], history: list[bool]
) -> None:
    monkeypatch.setattr("sandbox.db.liveness.CHECK_SECONDS", 0)
    server = Server(answers)
    liveness = Liveness(cast("Database", server), AsyncMock())
    await liveness.start()
    async with asyncio.timeout(60):
        await server.done.wait()
    await liveness.close()
    assert server.history[: len(history)] == history


async def test_a_server_that_stays_silent_is_replaced_and_again_after_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.db.liveness.CHECK_SECONDS", 0)
    monkeypatch.setattr("sandbox.db.liveness.REPLACE_ATTEMPTS", 3)
    server = Server([False, False, True, *[False] * 7])
    replaced_after: list[int] = []

    async def replace() -> None:
        replaced_after.append(len(server.history))
        raise DatabaseUnavailable("PostgreSQL does not end", hint="")

    liveness = Liveness(cast("Database", server), replace)
    await liveness.start()
    async with asyncio.timeout(20):
        await server.done.wait()
    await liveness.close()
    assert replaced_after == [6, 9]
