"""Migrations of a database that is in use: the statements of the previous release go on while they are applied."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from sandbox.db import migrations
from sandbox.db.migrations import Migration, migrate, migrations_folder
from sandbox.errors import MigrationError
from tests.waiting import WAIT_SECONDS

#: The schema of the previous release. Raise it to the last migration of each release that is published.
PREVIOUS_RELEASE = 17

#: What the code of that release runs all the time, as it wrote it.
WRITES_AND_READS = (
    "INSERT INTO logs (level, service, message, request_id, user_id, metadata)"
    " VALUES ('INFO', 'service', 'a message', 'request', 'ada', '{}')",
    "INSERT INTO traces (trace_id, span_id, operation_name, service_name, start_time, duration_ms, status)"
    " VALUES (md5(random()::text), substr(md5(random()::text), 1, 16), 'operation', 'service', NOW(), 12, 'success')",
    "UPDATE sandbox_sessions SET last_active = NOW(), last_seq = last_seq + 1",
    "INSERT INTO session_events (session_id, seq, run_id, type, data)"
    " SELECT session_id, last_seq, run_id, 'log', '{}' FROM sandbox_sessions ON CONFLICT DO NOTHING",
    "SELECT log_id, timestamp, level, service, message, stack_trace, request_id, user_id, metadata FROM logs"
    " WHERE level = 'INFO' ORDER BY timestamp DESC, log_id DESC LIMIT 50",
    "SELECT trace_id, span_id, duration_ms FROM traces WHERE service_name = 'service'"
    " ORDER BY start_time DESC LIMIT 50",
    "SELECT session_id, status, work FROM sandbox_sessions ORDER BY created_at DESC, session_id DESC LIMIT 50",
)

#: What later migrations may do: a column of a table in use, and an index on a partitioned and on a plain one.
EXAMPLES = {
    "add_columns": "ALTER TABLE logs ADD COLUMN host TEXT; ALTER TABLE sandbox_sessions ADD COLUMN region TEXT;",
    "index_logs": """-- no-transaction
        -- A comment; with a semicolon.
        CREATE INDEX IF NOT EXISTS logs_by_host ON ONLY logs (host);

        SELECT unnest(ARRAY[
                   format('CREATE INDEX CONCURRENTLY IF NOT EXISTS %I ON %I (host)', relname || '_by_host', relname),
                   format('ALTER INDEX logs_by_host ATTACH PARTITION %I', relname || '_by_host')])
          FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
         WHERE inhparent = 'logs'::regclass
           AND NOT EXISTS (SELECT FROM pg_index JOIN pg_inherits AS attached ON attached.inhrelid = indexrelid
                            WHERE indrelid = pg_class.oid AND attached.inhparent = 'logs_by_host'::regclass);
    """,
    "index_sessions": """-- no-transaction
        CREATE INDEX CONCURRENTLY IF NOT EXISTS sessions_by_region ON sandbox_sessions (region);
    """,
}

WAITING_FOR_TABLES = """
    SELECT pid FROM pg_stat_activity
     WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'relation'
"""
INVALID_INDEXES = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
WITHOUT_INDEX = """
    SELECT inhrelid::regclass::text FROM pg_inherits
     WHERE inhparent = 'logs'::regclass
       AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = inhrelid AND indexrelid IN (
                           SELECT inhrelid FROM pg_inherits WHERE inhparent = 'logs_by_host'::regclass))
"""


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A folder with the migrations of the previous release."""
    folder = tmp_path / "released"
    folder.mkdir()
    for file in migrations_folder().glob("*.sql"):
        if int(file.name[:3]) <= PREVIOUS_RELEASE:
            shutil.copy(file, folder)
    return folder


@pytest.fixture
def upcoming(tmp_path: Path) -> Path:
    """A folder with all migrations and the examples after them."""
    folder = tmp_path / "upcoming"
    shutil.copytree(migrations_folder(), folder, ignore=shutil.ignore_patterns("*.py"))
    last = len(list(folder.glob("*.sql")))
    for number, (name, sql) in enumerate(EXAMPLES.items(), start=last + 1):
        (folder / f"{number:03}_{name}.sql").write_text(sql)
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits, so that a test does not last for long."""
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(migrations, "LOCK_PAUSE_SECONDS", 0.3)


class Load:
    """The statements of the previous release, each repeated on a connection of its own."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(WRITES_AND_READS, 0)
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, dsn: str) -> None:
        self.tasks = [asyncio.create_task(self.repeat(dsn, statement)) for statement in WRITES_AND_READS]

    async def repeat(self, dsn: str, statement: str) -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            while True:
                await connection.execute(statement.encode())
                self.counts[statement] += 1
                await asyncio.sleep(0.01)

    async def every_statement_ran(self) -> None:
        """Wait until each statement has run again. Raises the error of one that failed."""
        before = dict(self.counts)
        async with asyncio.timeout(WAIT_SECONDS):
            while any(self.counts[statement] <= count for statement, count in before.items()):
                for task in self.tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.05)


async def new_session(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(
            "INSERT INTO sandbox_sessions (session_id, user_id, runtime_type, pipeline_run_id, run_id)"
            " VALUES (%s, 'ada', 'python312', 'run', %s)",
            (uuid4(), uuid4()),
        )


@pytest.fixture
async def load(empty_dsn: str, released: Path) -> AsyncIterator[Load]:
    """A database of the previous release that is read and written until the end of the test."""
    await migrate(empty_dsn, released)
    await new_session(empty_dsn)
    load = Load()
    load.start(empty_dsn)
    yield load
    for task in load.tasks:
        task.cancel()
    results = await asyncio.gather(*load.tasks, return_exceptions=True)
    assert [error for error in results if not isinstance(error, asyncio.CancelledError)] == []


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(query.encode()).fetchall()


async def test_the_previous_release_goes_on_while_its_database_is_migrated(
    empty_dsn: str, released: Path, upcoming: Path, load: Load, quick: None
) -> None:
    await load.every_statement_ran()
    async with await psycopg.AsyncConnection.connect(empty_dsn) as other:
        # A transaction that stays open for longer than the lock timeout: the migration waits, gives way and repeats.
        await other.execute(WRITES_AND_READS[0].encode())
        migrating = asyncio.create_task(migrate(empty_dsn, upcoming))
        async with asyncio.timeout(WAIT_SECONDS):
            while not rows(empty_dsn, WAITING_FOR_TABLES):
                await asyncio.sleep(0.05)
        # Without a lock timeout, the statements would wait behind the migration until the transaction ends.
        await load.every_statement_ran()
        assert not migrating.done()
        await other.commit()
    async with asyncio.timeout(WAIT_SECONDS):
        applied = await migrating
    assert applied == sorted(file.name for file in upcoming.glob("*.sql"))[PREVIOUS_RELEASE:]
    await load.every_statement_ran()
    assert rows(empty_dsn, INVALID_INDEXES) == []
    assert rows(empty_dsn, WITHOUT_INDEX) == []


async def test_a_lock_that_is_never_released_is_an_error(
    empty_dsn: str, released: Path, upcoming: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_ATTEMPTS", 2)
    await migrate(empty_dsn, released)
    with psycopg.connect(empty_dsn) as other:
        other.execute("LOCK TABLE logs, sandbox_sessions IN ACCESS SHARE MODE")
        with pytest.raises(MigrationError, match=r"\d{3}_\w+\.sql failed: a lock .* 2 times") as failed:
            await migrate(empty_dsn, upcoming)
        assert failed.value.code == "migration_failed"
    assert (await migrate(empty_dsn, upcoming))[-1].endswith("index_sessions.sql")


async def test_a_build_that_was_interrupted_is_repeated(empty_dsn: str, released: Path, upcoming: Path) -> None:
    await migrate(empty_dsn, released)
    names = [file.name for file in sorted(upcoming.glob("*.sql"))]
    last = upcoming / names[-1]
    sql = last.read_text()
    last.write_text(sql + "SELECT 1/0;\n")
    with pytest.raises(MigrationError, match="division by zero"):
        await migrate(empty_dsn, upcoming)
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        assert connection.execute("SELECT max(version) FROM schema_migrations").fetchone() == (len(names) - 1,)
        # What a server that crashes while it builds an index leaves of it.
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'sessions_by_region'::regclass",
        )
    last.write_text(sql)
    assert await migrate(empty_dsn, upcoming) == [names[-1]]
    assert rows(empty_dsn, INVALID_INDEXES) == []


async def test_files_without_a_transaction_can_be_repeated(empty_dsn: str, upcoming: Path, tmp_path: Path) -> None:
    folder = tmp_path / "growing"
    folder.mkdir()
    for migration in migrations.load(upcoming):
        shutil.copy(upcoming / migration.name, folder)
        if not migration.in_transaction:
            await migrate(empty_dsn, folder)
            with psycopg.connect(empty_dsn) as connection:
                connection.execute("DELETE FROM schema_migrations WHERE version = %s", (migration.version,))
            assert await migrate(empty_dsn, folder) == [migration.name]
    assert rows(empty_dsn, INVALID_INDEXES) == []
    assert rows(empty_dsn, WITHOUT_INDEX) == []


async def test_processes_that_wait_do_not_block_a_concurrent_build(
    empty_dsn: str, released: Path, upcoming: Path
) -> None:
    await migrate(empty_dsn, released)
    async with asyncio.timeout(60):
        applied = await asyncio.gather(*(migrate(empty_dsn, upcoming) for _ in range(3)))
    assert sorted(map(len, applied))[:2] == [0, 0]


def test_statements_end_with_a_semicolon_at_the_end_of_a_line() -> None:
    sql = b"-- no-transaction\nSELECT ';', 1;\n-- one; two;\n\nSELECT\n  2;  \nSELECT 3"
    assert Migration(1, "001_a.sql", sql).statements() == [b"SELECT ';', 1", b"SELECT\n  2", b"SELECT 3"]
    assert not Migration(1, "001_a.sql", sql).in_transaction
    assert Migration(1, "001_a.sql", b"\n" + sql).in_transaction
