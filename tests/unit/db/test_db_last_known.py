"""What was read lately is used while the database fails or hangs, and not a moment longer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sandbox.db import last_known
from sandbox.db.last_known import LastKnown
from sandbox.errors import DatabaseUnavailable


class Rows:
    """A database with one table. `away` makes it fail, `hanging` makes it silent."""

    def __init__(self, **rows: str) -> None:
        self.rows = rows
        self.away = False
        self.answering = asyncio.Event()
        self.answering.set()
        self.reads = 0

    def reader(self, key: str) -> Callable[[], Awaitable[str | None]]:
        """Reads the row of this key."""

        async def read() -> str | None:
            self.reads += 1
            await self.answering.wait()
            if self.away:
                raise DatabaseUnavailable("away")
            return self.rows.get(key)

        return read


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in a list so that tests can set it."""
    time = [1000.0]
    monkeypatch.setattr("sandbox.db.last_known.time.monotonic", lambda: time[0])
    return time


async def test_what_is_known_is_used_while_the_database_fails() -> None:
    rows, known = Rows(a="1"), LastKnown[str, str](10)
    assert await known.read("a", rows.reader("a")) == "1"
    rows.rows["a"] = "2"
    assert await known.read("a", rows.reader("a")) == "2"
    rows.away = True
    assert await known.read("a", rows.reader("a")) == "2"
    with pytest.raises(DatabaseUnavailable):
        await known.read("b", rows.reader("b"))


async def test_the_database_is_asked_again_soon_after_a_failure(now: list[float]) -> None:
    rows, known = Rows(a="1"), LastKnown[str, str](10)
    await known.read("a", rows.reader("a"))
    rows.away = True
    await known.read("a", rows.reader("a"))
    asked = rows.reads
    await known.read("a", rows.reader("a"))
    assert rows.reads == asked
    now[0] += last_known.RETRY_SECONDS
    rows.away, rows.rows["a"] = False, "2"
    assert await known.read("a", rows.reader("a")) == "2"


async def test_a_silent_database_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_known, "PATIENCE_SECONDS", 0.05)
    rows, known = Rows(a="1"), LastKnown[str, str](10)
    await known.read("a", rows.reader("a"))
    rows.answering.clear()
    assert await known.read("a", rows.reader("a")) == "1"
    asked = rows.reads
    assert [await known.read("a", rows.reader("a")) for _ in range(20)] == ["1"] * 20
    assert rows.reads == asked
    rows.rows.clear()
    rows.answering.set()
    async with asyncio.timeout(30):
        while await known.read("a", rows.reader("a")) is not None:
            await asyncio.sleep(0)


async def test_a_value_that_is_gone_is_forgotten() -> None:
    rows, known = Rows(a="1"), LastKnown[str, str](10)
    await known.read("a", rows.reader("a"))
    rows.rows.clear()
    assert await known.read("a", rows.reader("a")) is None
    rows.away = True
    with pytest.raises(DatabaseUnavailable):
        await known.read("a", rows.reader("a"))


async def test_a_value_counts_only_if_it_was_read_shortly_before_the_last_answer(now: list[float]) -> None:
    rows, known = Rows(a="1", b="2"), LastKnown[str, str](10, age_seconds=5)
    await known.read("a", rows.reader("a"))
    now[0] += 6
    await known.read("b", rows.reader("b"))
    rows.away = True
    now[0] += 60
    assert await known.read("b", rows.reader("b")) == "2"
    with pytest.raises(DatabaseUnavailable):
        await known.read("a", rows.reader("a"))


async def test_values_are_confirmed_together(now: list[float]) -> None:
    rows, known = Rows(a="1", b="2", c="3"), LastKnown[str, str](10, age_seconds=5)
    for key in "abc":
        await known.read(key, rows.reader(key))
    now[0] += 60
    known.forget("c")
    known.confirm({"a": "changed", "b": None, "c": "3"})
    rows.away = True
    assert await known.read("a", rows.reader("a")) == "changed"
    for key in "bc":
        with pytest.raises(DatabaseUnavailable):
            await known.read(key, rows.reader(key))


async def test_the_total_weight_is_bounded() -> None:
    rows, known = Rows(a="1" * 60, b="2" * 60), LastKnown[str, str](100, weigh=len)
    await known.read("a", rows.reader("a"))
    await known.read("b", rows.reader("b"))
    assert set(known.values()) == {"b"}
