"""Lists over day partitions, including future ones and the default partition; and full-text search."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from sandbox.db import tables
from sandbox.db.day_partitions import FilledDays
from sandbox.records import store

NOW = datetime.now(UTC).replace(microsecond=0)
TODAY = NOW.replace(hour=0, minute=0, second=0)
DAY = timedelta(days=1)
#: Past days that have partitions; other past days are in the default partition.
PAST = (1, 2, 3, 4, 8, 9, 10, 25)
IN_PARTITIONS = [NOW, *(TODAY - number * DAY + timedelta(hours=5) for number in PAST), TODAY - DAY, TODAY]
AHEAD = [TODAY + DAY, TODAY + 5 * DAY + timedelta(hours=3)]
#: Times after all partitions, in a gap between them, and before them.
ELSEWHERE = [datetime(9999, 12, 31, 23, 59, 59, 999999, UTC), TODAY + 40 * DAY, TODAY - 6 * DAY, TODAY - 300 * DAY]


async def written(database, moments):
    """Three lines at each of these times, in the partitions of a running service; their ids in list order."""
    async with database.transaction() as connection:
        for number in PAST:
            day = TODAY - number * DAY
            await connection.execute(
                text(
                    f"CREATE TABLE logs_p{day:%Y%m%d} PARTITION OF logs"
                    f" FOR VALUES FROM ('{day:%Y-%m-%d}') TO ('{day + DAY:%Y-%m-%d}')"
                )
            )
        rows = [{"time": moment, "service": f"service-{n}"} for moment in moments for n in range(3)]
        random.Random(7).shuffle(rows)
        insert = text("INSERT INTO logs (timestamp, level, service, message) VALUES (:time, 'INFO', :service, 'm')")
        if rows:
            await connection.execute(insert, rows)
        found = await connection.execute(
            text("SELECT timestamp, log_id, service FROM logs ORDER BY timestamp DESC, log_id DESC")
        )
        return [tuple(row) for row in found]


async def paged(database, limit, **asked):
    rows: list[Any] = []
    after = None
    while page := await store.LOGS.page(database, limit, after=after, **asked):
        rows += page
        after = store.LOGS.cursor(page[-1])
    return [(row["timestamp"], row["log_id"], row["service"]) for row in rows]


@pytest.mark.parametrize(
    "moments",
    [IN_PARTITIONS, IN_PARTITIONS + AHEAD, IN_PARTITIONS + AHEAD + ELSEWHERE, ELSEWHERE, AHEAD, []],
    ids=["past", "ahead", "all", "elsewhere", "ahead only", "nothing"],
)
async def test_pages_have_every_row_once_and_in_order(database, moments):
    there = await written(database, moments)
    for limit in (1, 4, 500):
        assert await paged(database, limit) == there
    for name in ("service-1", "nobody"):
        assert await paged(database, 4, equal={"service": name}) == [row for row in there if row[2] == name]


async def test_a_time_window_has_the_rows_within_it(database):
    there = await written(database, IN_PARTITIONS + AHEAD + ELSEWHERE)
    edges = [None, TODAY - 7 * DAY, TODAY - 3 * DAY, TODAY - DAY, NOW, TODAY + 2 * DAY, TODAY + 50 * DAY]
    for since in edges:
        for until in edges:
            within = [row for row in there if (since is None or row[0] >= since) and (until is None or row[0] < until)]
            assert await paged(database, 5, since=since, until=until) == within, (since, until)


async def test_days_include_their_first_row(database):
    async def filled():
        async with database.read() as connection:
            return await FilledDays.read(connection, "logs")

    assert await filled() == FilledDays(())
    await written(database, [NOW])
    assert await filled() == FilledDays((TODAY.replace(tzinfo=None),))
    async with database.transaction() as connection:
        await connection.execute(text("INSERT INTO logs (timestamp, level, message) VALUES ('1999-1-1', 'INFO', 'm')"))
    assert await filled() == FilledDays((TODAY.replace(tzinfo=None),), others=True)


MESSAGES = [
    *("payment order 1234 took 976 ms", "Payment of ORDER-1234 failed", "order of payment", "repayment reordered"),
    *("user@example.com paid at https://pay.example/order/7?x=1", "/var/log/payment.log order", "v1.2.3-rc1 1e5 -5"),
    *(
        "\u212aelvin payment",
        "\u0130stanbul order",
        "stra\u00dfe STRASSE order",
        "payment\u00e9 order",
        "\u4ed8\u6b3e order",
    ),
    *("foo-bar_baz order", "it's 'payment' \"order\"", "<b>payment</b> &amp; order", "PAYMENT\tORDER\nLINE", ""),
    *("x" * 3995 + " payment", "x" * 3990 + " payment order", "0x1F 1,234.5 +7 007 payment", "or not payment"),
]
QUERIES = [
    *(
        "payment",
        "PAYMENT",
        "payment order",
        '"payment order"',
        '"order payment"',
        "payment or order",
        "-payment order",
    ),
    *("payment -order", 'order -"payment order"', "kelvin", "istanbul", "strasse", "1234", "976 took", "5", "-5", "7"),
    *("1e5", "v1", "007", "0x1f", "foo bar", "foo-bar", "foo_bar", "baz", "example", "pay.example", "b", "amp", "or"),
    *(
        '"or" payment',
        'pay"ment order',
        "payment - order",
        "order OR kelvin",
        '"payment',
        "line order",
        "rc1",
        "\u212aelvin",
    ),
]


async def test_words_are_matched_as_postgresql_splits_them(database):
    plain = text(
        "SELECT message FROM logs"
        " WHERE to_tsvector('simple', left(message, 4000)) @@ websearch_to_tsquery('simple', :query)"
    )
    async with database.transaction() as connection:
        insert = text("INSERT INTO logs (level, message) VALUES ('INFO', :message)")
        await connection.execute(insert, [{"message": message} for message in MESSAGES])
    for query in QUERIES:
        async with database.read() as connection:
            expected = (await connection.execute(plain, {"query": query})).scalars().all()
        found = await store.LOGS.page(database, 100, where=store.matching(query))
        assert sorted(row["message"] for row in found) == sorted(expected), query


def test_most_of_those_words_use_the_letter_filter():
    assert len(store.matching("Payment order")) == 3
    assert len(store.matching('"payment order" -user')) == 3
    assert len(store.matching("payment or order")) == 1


async def test_pages_are_bounded_by_bytes_too(database, monkeypatch):
    expected = await written(database, IN_PARTITIONS + AHEAD)
    whole = await store.LOGS.page(database, 500)
    assert not whole.cut
    size = sum(len(str(row)) for row in whole)
    monkeypatch.setattr(tables, "PAGE_BYTES", size // 20)
    first = await store.LOGS.page(database, 500)
    assert first.cut
    assert 0 < len(first) < len(whole) / 2
    assert await paged(database, 500) == expected
    monkeypatch.setattr(tables, "PAGE_BYTES", 1)
    assert len(await store.LOGS.page(database, 500)) == 1
    assert await paged(database, 500) == expected
