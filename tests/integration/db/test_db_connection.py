"""The connection pool: times in UTC, type conversions, and lost connections."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from sandbox.db.connection import Database
from sandbox.db.driver import IDLE_SECONDS, connection_params, to_db, to_utc
from sandbox.errors import DatabaseUnavailable, InvalidInput

KATHMANDU = timezone(timedelta(hours=5, minutes=45))
MOMENT = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=KATHMANDU)


async def test_times_are_utc_both_ways(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            text("INSERT INTO alerts (severity, title, message, timestamp) VALUES ('info', 't', 'm', :at)"),
            {"at": MOMENT},
        )
        read, age = (await connection.execute(text("SELECT timestamp, NOW() - created_at FROM alerts"))).one()
    assert (read, read.tzinfo) == (MOMENT, UTC)
    assert age == timedelta(0)


async def test_copy_preserves_times_in_text_and_binary(database: Database) -> None:
    async with database.connect_raw() as connection, connection.cursor() as cursor:
        async with cursor.copy("COPY logs (timestamp, level, message) FROM STDIN") as copy:
            await copy.write_row((MOMENT, "INFO", "text"))
        async with cursor.copy("COPY logs (timestamp, level, message) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["timestamp", "varchar", "text"])
            await copy.write_row((to_db(MOMENT), "INFO", "binary"))
        await cursor.execute("SELECT message, timestamp FROM logs ORDER BY log_id")
        assert await cursor.fetchall() == [("text", MOMENT), ("binary", MOMENT)]


def test_times_are_converted() -> None:
    assert to_db(MOMENT) == datetime(2026, 3, 1, 6, 15, 0, 123456)
    assert to_utc(to_db(MOMENT)) == MOMENT
    assert to_utc(MOMENT).tzinfo is UTC


async def test_a_dict_is_jsonb(database: Database) -> None:
    value = {"a": [1, None, "ü"], "b": {"c": 1.5}}
    async with database.transaction() as connection:
        read = await connection.scalar(text("SELECT :value || '{}'::jsonb"), {"value": value})
    assert read == value


async def test_a_task_is_cancelled_though_the_rollback_fails(database: Database) -> None:
    entered = asyncio.Event()

    async def work() -> None:
        async with database.transaction() as connection:
            driver_connection = (await connection.get_raw_connection()).driver_connection
            assert driver_connection is not None
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                # The connection is busy, so the ROLLBACK cannot be sent.
                driver_connection.pgconn.send_query(b"SELECT pg_sleep(60)")

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=60)
    assert task.cancelled()
    await database.ping()


async def test_an_error_rolls_back_and_is_raised(database: Database) -> None:
    async def add_two() -> None:
        async with database.transaction() as connection:
            await connection.execute(text("INSERT INTO agents (name, category) VALUES ('new', 'core')"))
            await connection.execute(text("INSERT INTO agents (name, category) VALUES ('other', 'odd')"))

    with pytest.raises(IntegrityError):
        await add_two()
    async with database.transaction() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM agents WHERE name = 'new'")) == 0


async def test_raw_connections_listen(database: Database) -> None:
    async with database.connect_raw() as listener:
        await listener.execute("LISTEN news")
        async with database.transaction() as connection:
            await connection.execute(text("NOTIFY news, 'hello'"))
        async for notice in listener.notifies(timeout=30, stop_after=1):
            assert notice.payload == "hello"
            break
        else:
            pytest.fail("no notification arrived")


async def test_a_lost_connection_is_reported_once_and_replaced(database: Database, dsn: str) -> None:
    async def be_cut_off() -> None:
        async with database.transaction() as connection:
            pid = await connection.scalar(text("SELECT pg_backend_pid()"))
            with psycopg.connect(dsn, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
            await connection.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailable) as caught:
        await be_cut_off()
    assert caught.value.hint
    await database.ping()


async def test_connections_lost_while_idle_are_replaced_without_an_error(database: Database, dsn: str) -> None:
    await asyncio.gather(*(database.ping() for _ in range(5)))
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await asyncio.sleep(IDLE_SECONDS + 0.1)
    await asyncio.gather(*(database.ping() for _ in range(5)))


async def test_a_raw_connection_that_is_lost(database: Database, dsn: str) -> None:
    async def be_cut_off() -> None:
        async with database.connect_raw() as connection:
            with psycopg.connect(dsn, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 10000)", (connection.info.backend_pid,))
            await connection.execute("SELECT 1")

    with pytest.raises(DatabaseUnavailable):
        await be_cut_off()


async def test_an_exhausted_pool(dsn: str) -> None:
    database = Database(dsn, pool_size=1, max_overflow=0, pool_timeout=0.05)
    async with database.transaction():
        with pytest.raises(DatabaseUnavailable, match="no database connection became free"):
            await database.ping()
    await database.ping()
    await database.close()


@pytest.mark.parametrize("dsn", ["postgresql://u:secret@127.0.0.1:1/x", "postgresql+psycopg://postgres@/x?host=/none"])
async def test_a_server_that_does_not_exist(dsn: str) -> None:
    database = Database(dsn)
    with pytest.raises(DatabaseUnavailable) as caught:
        await database.ping()
    assert "secret" not in caught.value.message
    await database.close()


async def test_a_database_that_does_not_exist_is_unavailable(postgres: str) -> None:
    database = Database(postgres.replace("/purple8", "/no_such_database"))
    with pytest.raises(DatabaseUnavailable, match="does not exist"):
        await database.ping()
    await database.close()


@pytest.mark.parametrize("dsn", ["junk", "postgresql://u:secret@[::1/x", "mysql://u:secret@h/x"])
def test_an_invalid_url(dsn: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        connection_params(dsn)
    assert caught.value.code == "database_url_invalid"
    assert "secret" not in caught.value.message


def test_options_of_the_dsn_are_preserved() -> None:
    params = connection_params("postgresql://h/x?options=-c%20timezone%3DCET%20-c%20work_mem%3D1MB&connect_timeout=3")
    assert params["options"].endswith(" -c timezone=CET -c work_mem=1MB -c timezone=UTC")
    assert params["connect_timeout"] == "3"


@pytest.mark.parametrize(
    ("statement", "value"),
    [("SELECT CAST(:value AS text)", "a\0b"), ("SELECT CAST(CAST(:value AS text) AS integer)", "9" * 30)],
)
async def test_a_value_that_cannot_be_stored_is_invalid_input(database: Database, statement: str, value: str) -> None:
    for open_connection in (database.transaction, database.read):
        with pytest.raises(InvalidInput):
            async with open_connection() as connection:
                await connection.execute(text(statement), {"value": value})
