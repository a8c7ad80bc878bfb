"""A database whose file system is full: refused by name, and written again once there is room."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.db.embedded import EmbeddedPostgres
from sandbox.db.embedded_supervisor import PostgresSupervisor
from sandbox.db.migrations import migrate
from sandbox.domain.setting_formats import DiskReserve
from sandbox.errors import DatabaseFull, DatabaseUnavailable
from sandbox.records.alerts.store import Alerts
from sandbox.records.disk_space import DiskLow, DiskSpace, DiskState
from sandbox.records.otlp.intake import Intake
from sandbox.records.otlp.outcome import Refused, Stored
from sandbox.records.otlp.worker import Body
from sandbox.telemetry.recorder import Recorder
from sandbox.telemetry.rows import LogRow
from tests.small_disk import SmallDisk, small_disk

DEADLINE_SECONDS = 120
MIB = 1 << 20


def log_body(message: str) -> Body:
    """An export request with one log line."""
    record = {"timeUnixNano": str(time.time_ns()), "body": {"stringValue": message}}
    document = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    return Body("logs", json.dumps(document).encode(), "application/json", "", None)


@dataclass
class Small:
    """A database on a small disk, kept alive by a supervisor."""

    disk: SmallDisk
    database: Database
    dsn: str

    async def insert(self, rows: int) -> None:
        """Insert rows of 8 KiB in one transaction."""
        async with self.database.transaction() as connection:
            await connection.execute(
                text("INSERT INTO kept SELECT n, repeat(md5(random()::text), 250) FROM generate_series(1, :n) n"),
                {"n": rows},
            )

    async def count(self) -> int:
        async with self.database.read() as connection:
            return int((await connection.execute(text("SELECT count(*) FROM kept"))).scalar_one())

    async def refused(self) -> DatabaseUnavailable:
        """Insert until the disk is full; the error."""
        self.disk.fill(leave=200_000)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            assert time.monotonic() < deadline
            try:
                await self.insert(200)
            except DatabaseFull as error:
                return error
            except DatabaseUnavailable:
                # PostgreSQL ends when there is no room for its log. Why it does not start is known in a moment.
                await asyncio.sleep(0.2)

    async def accepted(self) -> None:
        """Free the space and wait until a row is accepted."""
        self.disk.clear()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            assert time.monotonic() < deadline
            try:
                await self.insert(1)
            except DatabaseUnavailable:
                await asyncio.sleep(0.2)
            else:
                return


@pytest.fixture
async def small(short_folder: Path) -> AsyncIterator[Small]:
    with small_disk(short_folder / "small", 160) as disk:
        server = EmbeddedPostgres(disk.folder / "h")
        dsn = await server.start()
        await migrate(dsn)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(server.stop)
            supervisor = PostgresSupervisor(server, check_seconds=0.1)
            await supervisor.start()
            stack.push_async_callback(supervisor.close)
            database = Database(dsn, explain=supervisor.explain)
            stack.push_async_callback(database.close)
            async with database.transaction() as connection:
                await connection.execute(text("CREATE TABLE kept (n INTEGER, filler TEXT)"))
                await connection.execute(text("ALTER TABLE kept ALTER filler SET STORAGE PLAIN"))
            yield Small(disk, database, dsn)
            # PostgreSQL needs room for its last checkpoint.
            disk.clear()


async def test_a_full_disk_is_refused_by_name_and_nothing_acknowledged_is_lost(small: Small) -> None:
    await small.insert(10)
    before = await small.count()
    error = await small.refused()
    assert error.code == "disk_full"
    assert "Free disk space" in error.hint
    assert small.database.is_full
    await small.accepted()
    assert await small.count() > before


async def test_records_wait_for_room(small: Small) -> None:
    recorder = Recorder(small.database)
    recorder.start()
    intake = Intake(small.dsn, max_body_bytes=MIB, max_waiting_bytes=MIB)
    assert isinstance(await intake.store(log_body("before")), Stored)
    await small.refused()
    for number in range(50):
        recorder.add_log(LogRow(datetime.now(UTC), "INFO", "test", f"line {number} {'x' * 20_000}"))
    outcome = await refusal(intake)
    assert outcome.code in ("disk_full", "database_unavailable", "intake_waiting")
    assert not await recorder.flush(1.0)
    assert recorder.counts["logs"].waiting > 0
    await small.accepted()
    assert await recorder.flush(DEADLINE_SECONDS)
    assert recorder.counts["logs"].dropped == 0
    assert isinstance(await intake.store(log_body("after")), Stored)
    await intake.close()
    await recorder.close()


async def refusal(intake: Intake) -> Refused:
    """Send bodies until one is refused: small ones may fit into pages that have room."""
    while True:
        outcome = await intake.store(log_body("x" * 100_000))
        if isinstance(outcome, Refused):
            return outcome


async def test_the_state_of_the_disk_is_alerted_even_if_the_alert_had_to_wait(small: Small) -> None:
    disk_space = DiskSpace(
        small.database, Alerts(notify=False), DiskReserve(bytes=40 * MIB), [lambda: small.disk.folder]
    )
    await disk_space.check()
    assert disk_space.state.code == "ok"
    disk_space.require_room()
    small.disk.fill(leave=30 * MIB)
    await disk_space.check()
    assert disk_space.state.code == "disk_low"
    with pytest.raises(DiskLow) as low:
        disk_space.require_room()
    assert low.value.code == "disk_low"
    await small.insert(1)
    await small.refused()
    await disk_space.check()
    assert disk_space.state.code == "disk_full"
    await small.accepted()
    await until_ok(disk_space)
    disk_space.require_room()
    async with small.database.read() as connection:
        rows = (await connection.execute(text("SELECT metadata->>'cause', status FROM alerts ORDER BY 1"))).all()
    assert [(cause.partition(":")[0], status) for cause, status in rows] == [
        ("disk_full", "resolved"),
        ("disk_low", "resolved"),
    ]


async def until_ok(disk_space: DiskSpace) -> None:
    """Check until the state is `ok` and has been reported."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while disk_space.state is not DiskState.OK:
        assert time.monotonic() < deadline
        await disk_space.check()
        await asyncio.sleep(0.2)
    await disk_space.check()
    await disk_space.check()
