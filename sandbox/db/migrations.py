"""The migration runner: applies the SQL files of `migrations/` in order, each once, while the service may be up.

A file is `NNN_what_it_does.sql`. Any number of processes may call `migrate` at once: one of them applies, the others
wait. An applied file must never be edited: its checksum is stored in `schema_migrations`.

Replicas are replaced one by one, so the code of the previous release runs on the schema of this one, and the migrations
are applied while it reads and writes. Therefore:

- **The previous release must run on the new schema.** Add tables and columns (nullable, or with a constant default);
  rename or drop only what the previous release no longer uses, one release later.
- **Hold strong locks briefly.** No rewrite and no full scan of a large table under a lock that blocks others: add a
  constraint `NOT VALID` and validate it in the next file, fill a new column in batches from the code.
- **Change one table per file**, or lock tables in the order in which the code does, to avoid deadlocks.

A file runs in one transaction together with the row that records it, so a process that is killed leaves nothing of it.
A statement that waits for a lock blocks those that come after it, so it waits for `LOCK_TIMEOUT_SECONDS` at most; then
the file is rolled back and tried again after a pause, up to `LOCK_ATTEMPTS` times.

A file whose first line is `-- no-transaction` runs statement by statement, outside of a transaction, and is recorded
afterwards. It is for indexes on large tables. It must be safe to repeat from the start, because a crash repeats it:

- A semicolon at the end of a line ends a statement, so such a file has no function bodies.
- Write `CREATE INDEX CONCURRENTLY IF NOT EXISTS name ON ...`. An invalid index of this name, which an interrupted build
  leaves, is dropped first. Statements that run CONCURRENTLY block nobody and have no lock timeout.
- If a statement returns rows, the text in the first column of each is executed as a statement (psql's `\\gexec`).

PostgreSQL cannot build an index CONCURRENTLY on a partitioned table (`logs`, `traces`). Create it on the parent alone,
then build and attach it for each partition that does not have it; partitions made meanwhile get it by themselves:

    -- no-transaction
    CREATE INDEX IF NOT EXISTS logs_by_host ON ONLY logs (host);

    SELECT unnest(ARRAY[
               format('CREATE INDEX CONCURRENTLY IF NOT EXISTS %I ON %I (host)', relname || '_by_host', relname),
               format('ALTER INDEX logs_by_host ATTACH PARTITION %I', relname || '_by_host')])
      FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
     WHERE inhparent = 'logs'::regclass
       AND NOT EXISTS (SELECT FROM pg_index JOIN pg_inherits AS attached ON attached.inhrelid = indexrelid
                        WHERE indrelid = pg_class.oid AND attached.inhparent = 'logs_by_host'::regclass);
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psycopg
from psycopg.errors import DeadlockDetected, LockNotAvailable

import sandbox
from sandbox.db.driver import connection_params, translated_errors
from sandbox.errors import MigrationError

#: Key of the advisory lock that the migrating process holds. An arbitrary number that must never change.
ADVISORY_LOCK = 874_100_001
#: Seconds between two attempts to get the advisory lock.
ADVISORY_LOCK_POLL_SECONDS = 0.2

#: Seconds that a statement waits for a lock, and so the longest time for which it blocks those that come after it.
LOCK_TIMEOUT_SECONDS = 2.0
#: How often a file, or a statement of a file without a transaction, is tried before the lock timeout is an error.
LOCK_ATTEMPTS = 15
#: Seconds before the next attempt, in which those that were blocked go on.
LOCK_PAUSE_SECONDS = 1.0

#: The oldest supported server version, in libpq's numbering: 14.0.
OLDEST_SERVER = 140_000

ResultT = TypeVar("ResultT")

_FILE_NAME = re.compile(r"^(\d{3,})_[a-z0-9_]+\.sql$")

_NO_TRANSACTION = b"-- no-transaction"
_STATEMENT_END = re.compile(rb";[ \t]*$", re.MULTILINE)
_COMMENT_LINE = re.compile(rb"^[ \t]*--.*$", re.MULTILINE)
_CONCURRENTLY = re.compile(rb"\bCONCURRENTLY\b", re.IGNORECASE)
_CONCURRENT_INDEX = re.compile(
    rb"CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+IF\s+NOT\s+EXISTS\s+(\"[^\"]+\"|\w+)", re.IGNORECASE
)
_IS_INVALID_INDEX = "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(%s) AND NOT indisvalid)"

_CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    sha256     TEXT NOT NULL,
    applied_at TIMESTAMP NOT NULL DEFAULT NOW()
)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, its name and its content."""

    version: int
    name: str
    sql: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql).hexdigest()

    @property
    def in_transaction(self) -> bool:
        """Whether the whole file runs in one transaction."""
        return self.sql.partition(b"\n")[0].strip() != _NO_TRANSACTION

    def statements(self) -> list[bytes]:
        """The statements of a file that does not run in a transaction."""
        parts = (part.strip() for part in _STATEMENT_END.split(_COMMENT_LINE.sub(b"", self.sql)))
        return [part for part in parts if part]


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """Names of the files that were applied to a database, and of those that were not yet."""

    applied: list[str]
    pending: list[str]


def migrations_folder() -> Path:
    """The SQL files: within the package when it was installed from a wheel, else at the root of the checkout."""
    package = Path(sandbox.__file__).parent
    packaged = package / "_migrations"
    return packaged if packaged.is_dir() else package.parent / "migrations"


async def migrate(dsn: str, folder: Path | None = None) -> list[str]:
    """Bring the database up to date and return the names of the files applied by this call, in order.

    May be called by any number of processes at once: each file is applied by one of them, the others wait.
    Raises `DatabaseUnavailable`, and `MigrationError`: before anything is changed (codes `migration_edited`,
    `migration_gap`, `migration_duplicate`, `database_newer`, `database_too_old`, `database_not_utf8`,
    `migration_refused`), or with `migration_failed` when a file's SQL fails or a lock is not available in time. The
    files before that one stay applied; a file that runs in a transaction leaves nothing.
    """
    migrations = await asyncio.to_thread(load, folder or migrations_folder())
    with translated_errors():
        async with await _connect(dsn) as connection:
            await _lock(connection)
            pending = check(migrations, await _applied(connection))
            if pending:
                await connection.execute(_CREATE_TABLE)
            for migration in pending:
                await _apply(connection, migration)
            return [migration.name for migration in pending]


async def status(dsn: str, folder: Path | None = None) -> MigrationStatus:
    """The applied and the pending files. Changes nothing. Raises like `migrate`."""
    migrations = await asyncio.to_thread(load, folder or migrations_folder())
    with translated_errors():
        async with await _connect(dsn) as connection:
            applied = await _applied(connection)
    pending = check(migrations, applied)
    return MigrationStatus(applied=[name for _, name, _ in applied], pending=[m.name for m in pending])


def load(folder: Path) -> list[Migration]:
    """Read the files of a folder, in order. Raises `MigrationError` for a gap, a duplicate or an invalid name."""
    files = sorted(folder.glob("*.sql"))
    if not files:
        raise MigrationError(f"there are no migrations in {folder}", hint="Reinstall purple8-sandbox.")
    by_version: dict[int, Migration] = {}
    for file in files:
        match = _FILE_NAME.match(file.name)
        if match is None:
            raise MigrationError(
                f"{file.name} is not the name of a migration", hint="Name it NNN_what_it_does.sql, in lower case."
            )
        version = int(match[1])
        if version in by_version:
            raise MigrationError(
                f"{by_version[version].name} and {file.name} have the same number",
                hint=f"Give the newer of the two the number {len(files):03}.",
                code="migration_duplicate",
            )
        by_version[version] = Migration(version, file.name, file.read_bytes())
    for expected, version in enumerate(sorted(by_version), start=1):
        if version != expected:
            raise MigrationError(
                f"migration {expected:03} is missing: {by_version[version].name} follows {expected - 1:03}",
                hint="Restore the missing file, or renumber those after it if none of them was ever applied.",
                code="migration_gap",
            )
    return [by_version[version] for version in sorted(by_version)]


def check(migrations: Sequence[Migration], applied: Sequence[tuple[int, str, str]]) -> list[Migration]:
    """Compare the files with the rows (version, name, sha256) of `schema_migrations`; return the pending files.

    Raises `MigrationError` if they contradict each other.
    """
    by_version = {migration.version: migration for migration in migrations}
    for expected, (version, name, sha256) in enumerate(applied, start=1):
        if version not in by_version:
            raise MigrationError(
                f"the database has {name}, this version of the code ends at {migrations[-1].name}",
                hint="Run the newer version of the code that migrated it, or restore a backup from before.",
                code="database_newer",
            )
        if version != expected:
            raise MigrationError(
                f"the database has {name} but not {by_version[expected].name}",
                hint="schema_migrations was changed by hand; put back the row that is missing.",
                code="migration_gap",
            )
        migration = by_version[version]
        if (migration.name, migration.sha256) != (name, sha256):
            change = "edited" if migration.name == name else f"renamed to {migration.name}"
            raise MigrationError(
                f"{name} was {change} after it had been applied",
                hint="Restore the file as it was and put the change into a new migration.",
                code="migration_edited",
            )
    return list(migrations[len(applied) :])


async def _connect(dsn: str) -> psycopg.AsyncConnection:
    params = connection_params(dsn, application_name="purple8-sandbox migrate")
    # The server notices within a second that the migrating process has died, and releases its lock.
    params["options"] += " -c client_connection_check_interval=1000"
    connection = await psycopg.AsyncConnection.connect(**params, autocommit=True)
    try:
        _check_server(connection.info)
    except MigrationError:
        await connection.close()
        raise
    return connection


def _check_server(info: psycopg.ConnectionInfo) -> None:
    if info.server_version < OLDEST_SERVER:
        raise MigrationError(
            f"the database server is PostgreSQL {info.server_version // 10_000}, {OLDEST_SERVER // 10_000} is needed",
            hint="Let DATABASE_URL name a newer one; without it an embedded one is started.",
            code="database_too_old",
        )
    encoding = info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise MigrationError(
            f"the database {info.dbname} stores text as {encoding}, UTF8 is needed",
            hint=f"Create it again: createdb --template template0 --encoding UTF8 {info.dbname}",
            code="database_not_utf8",
        )


async def _applied(connection: psycopg.AsyncConnection) -> list[tuple[int, str, str]]:
    cursor = await connection.execute("SELECT to_regclass('schema_migrations') IS NOT NULL")
    if await cursor.fetchone() != (True,):
        return []
    cursor = await connection.execute("SELECT version, name, sha256 FROM schema_migrations ORDER BY version")
    return await cursor.fetchall()


async def _lock(connection: psycopg.AsyncConnection) -> None:
    """Wait for the advisory lock of all migrating processes; it is held until the connection is closed.

    Polls instead of calling `pg_advisory_lock`: that statement would hold a snapshot while it waits, and CREATE INDEX
    CONCURRENTLY of the process that has the lock waits for all older snapshots, which is a deadlock.
    """
    while True:
        cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", (ADVISORY_LOCK,))
        if await cursor.fetchone() == (True,):
            return
        await asyncio.sleep(ADVISORY_LOCK_POLL_SECONDS)


async def _apply(connection: psycopg.AsyncConnection, migration: Migration) -> None:
    """Run one file and record it. Raises MigrationError with the file's name."""
    try:
        if migration.in_transaction:
            await _retried(lambda: _run_in_transaction(connection, migration))
        else:
            for statement in migration.statements():
                await _run_statement(connection, statement)
            await _record(connection, migration)
    except psycopg.Error as error:
        if connection.broken:
            raise
        raise _failed(migration, error) from error


async def _retried(attempt: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """Run `attempt` until it gets its locks in time, at most `LOCK_ATTEMPTS` times."""
    for _ in range(LOCK_ATTEMPTS - 1):
        try:
            return await attempt()
        except (LockNotAvailable, DeadlockDetected):
            await asyncio.sleep(LOCK_PAUSE_SECONDS)
    return await attempt()


async def _run_in_transaction(connection: psycopg.AsyncConnection, migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_SECONDS * 1000:.0f}")
        # Without parameters the file is sent as it is, with its '%' and all its statements.
        await connection.execute(migration.sql, prepare=False)
        await _record(connection, migration)


async def _run_statement(connection: psycopg.AsyncConnection, statement: bytes) -> None:
    """Run a statement outside of a transaction, and then the statements that it returns as rows."""
    timeout = 0 if _CONCURRENTLY.search(statement) else LOCK_TIMEOUT_SECONDS
    await connection.execute(f"SET lock_timeout = {timeout * 1000:.0f}")

    async def attempt() -> list[tuple[str]]:
        await _drop_invalid_index(connection, statement)
        result = await connection.execute(statement, prepare=False)
        return await result.fetchall() if result.description else []

    for generated in await _retried(attempt):
        await _run_statement(connection, generated[0].encode())


async def _drop_invalid_index(connection: psycopg.AsyncConnection, statement: bytes) -> None:
    """Drop what an interrupted build of the index that `statement` creates has left; IF NOT EXISTS would keep it."""
    match = _CONCURRENT_INDEX.match(statement)
    if match is not None:
        name = match[1].decode()
        cursor = await connection.execute(_IS_INVALID_INDEX, (name,))
        if await cursor.fetchone() == (True,):
            await connection.execute(f"DROP INDEX CONCURRENTLY {name}".encode())


async def _record(connection: psycopg.AsyncConnection, migration: Migration) -> None:
    await connection.execute(
        "INSERT INTO schema_migrations (version, name, sha256) VALUES (%s, %s, %s)",
        (migration.version, migration.name, migration.sha256),
    )


def _failed(migration: Migration, error: psycopg.Error) -> MigrationError:
    state = (
        "Nothing of this file was applied."
        if migration.in_transaction
        else "The file starts again from its first statement."
    )
    if isinstance(error, LockNotAvailable | DeadlockDetected):
        return MigrationError(
            f"{migration.name} failed: a lock was not available within {LOCK_TIMEOUT_SECONDS:g} seconds, "
            f"{LOCK_ATTEMPTS} times in a row",
            hint=f"{state} Find the transaction that holds it (pg_stat_activity, pg_locks), and migrate again.",
            code="migration_failed",
        )
    return MigrationError(
        f"{migration.name} failed: {error}", hint=f"{state} Fix the cause and migrate again.", code="migration_failed"
    )
