"""The migration runner: applies the SQL files of `migrations/` once each, in order, whoever else tries at the time.

A file is `NNN_what_it_does.sql`. Each runs in one transaction together with the row that records it, so that a process
killed in the middle leaves nothing of that file; the lock is the connection's and goes with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

import sandbox
from sandbox.db.driver import connection_params, translated_errors
from sandbox.errors import MigrationError

#: Held (pg_advisory_lock) by whoever migrates a database. Any number, as long as it never changes.
ADVISORY_LOCK = 874_100_001

#: As libpq has it: 14.0.
OLDEST_SERVER = 140_000

_FILE_NAME = re.compile(r"^(\d{3,})_[a-z0-9_]+\.sql$")

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
    """One file: its number, its name and what is in it."""

    version: int
    name: str
    sql: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql).hexdigest()


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """Names of the files that a database has, and of those it still needs."""

    applied: list[str]
    pending: list[str]


def migrations_folder() -> Path:
    """The SQL files: within the package when it was installed from a wheel, else at the root of the checkout."""
    package = Path(sandbox.__file__).parent
    packaged = package / "_migrations"
    return packaged if packaged.is_dir() else package.parent / "migrations"


async def migrate(dsn: str, folder: Path | None = None) -> list[str]:
    """Bring the database up to date; answers the names of the files applied now, in order.

    May be called by any number of processes at once: each file is applied by one of them, the others wait.
    Raises `DatabaseUnavailable`, and `MigrationError`: before anything is changed (codes `migration_edited`,
    `migration_gap`, `migration_duplicate`, `database_newer`, `database_too_old`, `database_not_utf8`,
    `migration_refused`), or with `migration_failed` when a file's SQL fails; the files before that one stay applied,
    nothing of it does.
    """
    migrations = await asyncio.to_thread(load, folder or migrations_folder())
    with translated_errors():
        async with await _connect(dsn) as connection:
            # Never wait for a lock in one statement with the check: what others commit meanwhile must be seen.
            await connection.execute("SELECT pg_advisory_lock(%s)", (ADVISORY_LOCK,))
            pending = check(migrations, await _applied(connection))
            if pending:
                await connection.execute(_CREATE_TABLE)
            for migration in pending:
                await _apply(connection, migration)
            return [migration.name for migration in pending]


async def status(dsn: str, folder: Path | None = None) -> MigrationStatus:
    """What the database has and what it lacks; changes nothing. Raises like `migrate`."""
    migrations = await asyncio.to_thread(load, folder or migrations_folder())
    with translated_errors():
        async with await _connect(dsn) as connection:
            applied = await _applied(connection)
    pending = check(migrations, applied)
    return MigrationStatus(applied=[name for _, name, _ in applied], pending=[m.name for m in pending])


def load(folder: Path) -> list[Migration]:
    """Read the files of a folder, in order. Raises `MigrationError` for a gap, a duplicate or a name that is none."""
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
    """Hold the files against the rows (version, name, sha256) of a database; answers the files it still needs.

    Raises `MigrationError` where the two do not fit together.
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
    # When the migrating process dies, its statement ends within a second, and with it the lock.
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
            f"the database {info.dbname} keeps text as {encoding}, UTF8 is needed",
            hint=f"Make it anew: createdb --template template0 --encoding UTF8 {info.dbname}",
            code="database_not_utf8",
        )


async def _applied(connection: psycopg.AsyncConnection) -> list[tuple[int, str, str]]:
    cursor = await connection.execute("SELECT to_regclass('schema_migrations') IS NOT NULL")
    if await cursor.fetchone() != (True,):
        return []
    cursor = await connection.execute("SELECT version, name, sha256 FROM schema_migrations ORDER BY version")
    return await cursor.fetchall()


async def _apply(connection: psycopg.AsyncConnection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            # No parameters: the file is sent as it is, '%' and several statements included.
            await connection.execute(migration.sql, prepare=False)
            await connection.execute(
                "INSERT INTO schema_migrations (version, name, sha256) VALUES (%s, %s, %s)",
                (migration.version, migration.name, migration.sha256),
            )
    except psycopg.Error as error:
        if connection.broken:
            raise
        raise MigrationError(
            f"{migration.name} failed: {error}",
            hint="Nothing of this file was kept. Mend the cause and migrate again.",
            code="migration_failed",
        ) from error
