"""How PostgreSQL answers the lists' own statements: days that cannot matter are left out, and no rows read in turn.

Never by a stopwatch, and without forbidding the planner anything.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import event

from sandbox.db.connection import Database
from sandbox.db.migrations import migrate
from sandbox.records import saved_queries, store
from tests.bench.rows import fill
from tests.postgres import other_database

LOGS, SPANS = 120_000, 40_000
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)
WORDS = ["payment", "976", "order 77", "nowhere", '"payment order"', "payment -cart"]


@pytest.fixture(scope="module")
async def month(postgres: str) -> str:
    """A database with a month of logs and a week of spans, which no test changes."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS month")
        connection.execute("CREATE DATABASE month")
    dsn = other_database(postgres, "month")
    await migrate(dsn)
    fill(dsn, LOGS, SPANS)
    return dsn


@pytest.fixture
async def records(month: str):
    database = Database(month)
    yield database
    await database.close()


@contextmanager
def explained(database: Database, table: str) -> Iterator[Callable[[], Awaitable[list[dict[str, Any]]]]]:
    """Plans (EXPLAIN ANALYZE) of the statements about the table that the block sends."""
    asked = []
    planned: list[dict[str, Any]] = []

    @event.listens_for(database.engine.sync_engine, "before_cursor_execute")
    def _note(_connection, _cursor, statement, parameters, _context, _many):
        if f"FROM {table}" in statement and not statement.startswith("EXPLAIN"):
            asked.append((statement, parameters))

    async def plans():
        async with database.read() as connection:
            for statement, parameters in asked:
                answer = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
                plan = answer.scalar_one()
                planned.append((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
        return planned

    try:
        yield plans
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", _note)


def nodes(plans):
    waiting = list(plans)
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node.get("Plans", ())


def days_read(plans, table):
    """Days of the partitions in the plans; the default partition by its name."""
    names = {node["Relation Name"] for node in nodes(plans) if "Relation Name" in node}
    return {name.removeprefix(f"{table}_p") for name in names if name.startswith(table)}


def read_in_turn(plans):
    """Relations with rows that were read by a sequential scan."""
    return {
        node["Relation Name"]
        for node in nodes(plans)
        if node["Node Type"] == "Seq Scan" and (node["Actual Rows"] or node.get("Rows Removed by Filter"))
    }


def days(first, last):
    """Names of the days between the two, which count back from today."""
    return {f"{TODAY - number * DAY:%Y%m%d}" for number in range(last, first + 1)}


LISTS = [
    *((store.LOGS, filters, []) for filters in ({}, {"level": "ERROR"}, {"level": "CRITICAL"})),
    *((store.LOGS, {"service": name}, []) for name in ("service-0", "service-rare", "service-retired", "nobody")),
    *((store.LOGS, {"user_id": name}, []) for name in ("user-0", "user-999", "user-nobody")),
    (store.LOGS, {"request_id": "request-777"}, []),
    (store.LOGS, {"level": "ERROR", "service": "service-12"}, []),
    *((store.LOGS, {}, store.matching(words)) for words in WORDS),
    *((store.LOGS, {"level": "ERROR"}, store.matching(words)) for words in WORDS[:4]),
    *((store.LOGS, {"user_id": "user-999"}, store.matching(words)) for words in WORDS[:4]),
    *((store.TRACES, {"status": status}, []) for status in ("success", "error", "timeout")),
    *((store.TRACES, {"service_name": name}, []) for name in ("service-0", "service-7", "nobody")),
    (store.TRACES, {"operation_name": "GET /email"}, []),
    (store.TRACES, {"trace_id": f"{777:032x}"}, []),
    (store.TRACES, {"status": "error", "service_name": "service-12"}, []),
    *((store.TRACES, {}, [store.spans_of(user)]) for user in ("user-0", "user-999", "user-nobody")),
    (store.TRACES, {"status": "error"}, [store.spans_of("user-0")]),
]


@pytest.mark.parametrize(("table", "equal", "where"), LISTS, ids=lambda value: getattr(value, "name", None))
async def test_lists_skip_future_days_and_scan_nothing_sequentially(records, table, equal, where):
    with explained(records, table.name) as plans:
        rows = await table.page(records, 50, equal=equal, where=where)
        if len(rows) == 50:
            await table.page(records, 50, equal=equal, where=where, after=table.cursor(rows[-1]))
    found = await plans()
    length = 30 if table is store.LOGS else 7
    assert found
    assert days_read(found, table.name) <= days(length - 1, 0)
    assert not read_in_turn(found)


@pytest.mark.parametrize(
    ("table", "equal", "where"),
    [
        (store.LOGS, {}, []),
        (store.LOGS, {"service": "service-0"}, []),
        (store.LOGS, {}, store.matching("payment")),
        (store.TRACES, {"service_name": "service-0"}, []),
        (store.TRACES, {}, [store.spans_of("user-0")]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
async def test_pages_of_common_values_read_one_day(records, table, equal, where):
    # Pages start at the end of a past day, because the size of today's partition depends on the hour.
    with explained(records, table.name) as plans:
        rows = await table.page(records, 20, equal=equal, where=where, until=TODAY)
        later = await table.page(records, 20, equal=equal, where=where, until=TODAY, after=table.cursor(rows[-1]))
    assert len(rows) == len(later) == 20
    assert days_read(await plans(), table.name) == days(1, 1)


async def test_a_time_window_reads_only_its_days(records):
    since, until = TODAY - 9 * DAY, TODAY - 8 * DAY + timedelta(hours=6)
    with explained(records, "logs") as plans:
        rows = await store.LOGS.page(records, 50, equal={"service": "service-rare"}, since=since, until=until)
    assert len(rows) < 50
    assert days_read(await plans(), "logs") == days(9, 8)


async def test_a_later_page_skips_the_days_of_earlier_pages(records):
    with explained(records, "logs") as plans:
        place = store.LOGS.cursor({"timestamp": TODAY - 12 * DAY + timedelta(hours=1), "log_id": 1})
        await store.LOGS.page(records, 10, after=place)
    assert days_read(await plans(), "logs") == days(12, 12)


async def test_statements_have_custom_plans_however_often_they_are_sent(records):
    """The driver prepares frequent statements, for which PostgreSQL may choose a generic plan that is wrong here."""
    for _ in range(12):
        await store.LOGS.page(records, 20, equal={"user_id": "user-nobody"})
    async with records.read() as connection:
        prepared = await connection.exec_driver_sql(
            "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE '%%FROM logs%%'"
        )
        plans = [tuple(row) for row in prepared]
    assert plans
    assert all(generic == 0 and custom > 0 for generic, custom in plans)


@pytest.mark.parametrize("name", ["recent-error-logs", "slow-traces"])
async def test_saved_queries_with_a_window_read_only_its_days(records, name):
    query = saved_queries.find(name)
    table = "logs" if name == "recent-error-logs" else "traces"
    with explained(records, f"{table}\n") as plans:
        await saved_queries.run(records, query)
    found = await plans()
    assert not days_read(found, table) & days(30, 3)
    assert not read_in_turn(found)


async def test_one_trace_is_found_by_its_key(records):
    with explained(records, "traces") as plans:
        assert await store.spans_of_trace(records, f"{777:032x}", None)
    assert not read_in_turn(await plans())


async def test_spans_of_a_service_and_operation_are_found_by_the_index(records):
    with explained(records, "traces") as plans:
        asked = {"service_name": "service-1", "operation_name": "GET /order"}
        assert await store.TRACES.page(records, 50, equal=asked)
    assert not [node for node in nodes(await plans()) if node.get("Rows Removed by Filter")]
