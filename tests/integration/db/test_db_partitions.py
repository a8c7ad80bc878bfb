"""Day partitions of logs and traces: created ahead, dropped as a whole."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database

TODAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)


def name(day: datetime) -> str:
    return f"logs_p{day:%Y%m%d}"


async def add_log(connection: AsyncConnection, at: datetime) -> None:
    await connection.execute(
        text("INSERT INTO logs (timestamp, level, message) VALUES (:at, 'INFO', :message)"),
        {"at": at, "message": f"{at:%Y%m%d}"},
    )


async def places(connection: AsyncConnection) -> dict[str, str]:
    rows = await connection.execute(text("SELECT message, tableoid::regclass::text FROM logs ORDER BY timestamp"))
    return dict(rows.all())


async def ensure(connection: AsyncConnection, days: int) -> int:
    return await connection.scalar(text("SELECT ensure_day_partitions(:days)"), {"days": days})


async def test_partitions_exist_a_week_ahead_and_other_rows_go_to_the_default(database: Database) -> None:
    days = [TODAY - timedelta(days=1), TODAY, TODAY + timedelta(days=6), TODAY + timedelta(days=40)]
    async with database.transaction() as connection:
        for day in days:
            await add_log(connection, day)
        found = await places(connection)
    assert list(found.values()) == ["logs_default", name(days[1]), name(days[2]), "logs_default"]


async def test_new_partitions_receive_rows_of_the_default(database: Database) -> None:
    late = TODAY + timedelta(days=20)
    beyond = TODAY + timedelta(days=60)
    async with database.transaction() as connection:
        await add_log(connection, late)
        await add_log(connection, beyond)
        await connection.execute(
            text(
                "INSERT INTO traces (trace_id, span_id, operation_name, service_name, start_time)"
                " VALUES ('t', 's', 'o', 's', :at)"
            ),
            {"at": late},
        )
    async with database.transaction() as connection:
        made = await ensure(connection, 30)
        # A day may have begun since the migration.
        assert made in (2 * 23, 2 * 24)
        assert await ensure(connection, 30) == 0
        assert await places(connection) == {f"{late:%Y%m%d}": name(late), f"{beyond:%Y%m%d}": "logs_default"}
        assert await connection.scalar(text("SELECT count(*) FROM traces_default")) == 0
        assert await connection.scalar(text("SELECT count(*) FROM traces")) == 1
        # The new partitions have the same indexes as the others.
        counts = await connection.execute(
            text(
                "SELECT count(*) FROM pg_index WHERE indrelid IN (to_regclass(:new), to_regclass(:old))"
                " GROUP BY indrelid"
            ),
            {"new": name(late), "old": "logs_default"},
        )
        assert len(set(counts.scalars())) == 1


async def test_concurrent_calls_create_each_partition_once(database: Database) -> None:
    async def one() -> int:
        async with database.transaction() as connection:
            return await ensure(connection, 20)

    made = await asyncio.gather(*(one() for _ in range(4)))
    assert sorted(made)[:3] == [0, 0, 0]
    assert max(made) >= 2 * 13


async def test_writers_are_not_blocked_while_partitions_are_created(database: Database) -> None:
    async with database.transaction() as maker:
        await ensure(maker, 9)
        async with database.transaction() as writer:
            await writer.execute(text("SET LOCAL lock_timeout = '5s'"))
            await add_log(writer, TODAY)
    async with database.transaction() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM logs")) == 1


async def test_only_old_days_are_dropped(database: Database) -> None:
    async with database.transaction() as connection:
        for days in (29, 30, 31, 45):
            day = TODAY - timedelta(days=days)
            if days != 45:
                await connection.execute(
                    text(
                        f"CREATE TABLE {name(day)} PARTITION OF logs FOR VALUES FROM ('{day:%Y-%m-%d}')"
                        f" TO ('{day + timedelta(days=1):%Y-%m-%d}')"
                    )
                )
            await add_log(connection, day)
        dropped = (await connection.execute(text("SELECT drop_day_partitions('logs', 30)"))).scalars().all()
        assert dropped == [name(TODAY - timedelta(days=31))]
        left = await connection.execute(text("SELECT message FROM logs ORDER BY timestamp"))
        assert left.scalars().all() == [f"{TODAY - timedelta(days=days):%Y%m%d}" for days in (30, 29)]


async def test_other_tables_are_refused(database: Database) -> None:
    with pytest.raises(Exception, match="agents is not partitioned by day"):
        async with database.transaction() as connection:
            await connection.execute(text("SELECT drop_day_partitions('agents', 30)"))
