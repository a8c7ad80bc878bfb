"""The migration runner: each file once, completely or not at all; refusals change nothing."""

import asyncio
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from sandbox.db import migrations
from sandbox.db.migrations import ADVISORY_LOCK, migrate, migrations_folder, status
from sandbox.errors import DatabaseUnavailable, MigrationError

MIGRATE = """
import asyncio, sys
from pathlib import Path
from sandbox.db.migrations import migrate
print(*asyncio.run(migrate(sys.argv[1], Path(sys.argv[2]))))
"""


def start_migrator(dsn: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", MIGRATE, dsn, str(folder)], stdout=subprocess.PIPE, text=True)


def wait_until(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not true():
        assert time.monotonic() < give_up, "the condition never became true"
        time.sleep(0.02)


def everything(dsn: str) -> list[tuple[object, ...]]:
    """Everything that a refused run could have changed."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT relname, relkind::text FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
        ).fetchall()
        if connection.execute("SELECT to_regclass('schema_migrations')").fetchone() != (None,):
            found += connection.execute("SELECT * FROM schema_migrations ORDER BY version").fetchall()
        return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three small migrations, the second with text that is difficult for runners."""
    (tmp_path / "001_first.sql").write_text("CREATE TABLE first (id INT);")
    (tmp_path / "002_second.sql").write_text(
        "CREATE FUNCTION second() RETURNS TEXT LANGUAGE plpgsql AS $$\n"
        "BEGIN -- 100% of it; really\n RETURN format('%s;', '%(x)s :y'); END\n$$;\n"
        "CREATE TABLE second AS SELECT second() AS value WHERE 'a;b' LIKE '%;%';"
    )
    (tmp_path / "003_third.sql").write_text("CREATE TABLE third (id INT);")
    return tmp_path


async def test_files_are_applied_in_order_and_unchanged(empty_dsn: str, folder: Path) -> None:
    names = ["001_first.sql", "002_second.sql", "003_third.sql"]
    assert (await status(empty_dsn, folder)).pending == names
    assert await migrate(empty_dsn, folder) == names
    assert await migrate(empty_dsn, folder) == []
    assert (await status(empty_dsn, folder)).applied == names
    with psycopg.connect(empty_dsn) as connection:
        assert connection.execute("SELECT value FROM second").fetchone() == ("%(x)s :y;",)


async def test_new_files_are_applied_to_a_migrated_database(empty_dsn: str, folder: Path) -> None:
    await migrate(empty_dsn, folder)
    (folder / "004_fourth.sql").write_text("CREATE TABLE fourth (id INT);")
    assert await migrate(empty_dsn, folder) == ["004_fourth.sql"]


async def test_concurrent_processes_apply_each_file_once(empty_dsn: str) -> None:
    folder = migrations_folder()
    with psycopg.connect(empty_dsn, autocommit=True) as gate:
        gate.execute("SELECT pg_advisory_lock(%s)", (ADVISORY_LOCK,))
        processes = [start_migrator(empty_dsn, folder) for _ in range(4)]
        wait_until(
            lambda: (
                gate.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name = 'purple8-sandbox migrate'"
                ).fetchone()
                == (4,)
            )
        )
        gate.execute("SELECT pg_advisory_unlock(%s)", (ADVISORY_LOCK,))
        outputs = [(await asyncio.to_thread(process.communicate))[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert sorted(name for output in outputs for name in output) == sorted(file.name for file in folder.glob("*.sql"))
    assert (await status(empty_dsn)).pending == []


async def test_a_process_killed_within_a_file_leaves_nothing_of_it(empty_dsn: str, folder: Path) -> None:
    whole = (folder / "002_second.sql").read_text()
    (folder / "002_second.sql").write_text(whole + "SELECT pg_sleep(600);")
    process = start_migrator(empty_dsn, folder)
    with psycopg.connect(empty_dsn, autocommit=True) as watcher:

        def sleeping() -> bool:
            row = watcher.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
            ).fetchone()
            return row == (1,)

        wait_until(sleeping)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        wait_until(lambda: not sleeping())
        assert watcher.execute("SELECT version FROM schema_migrations").fetchall() == [(1,)]
        assert watcher.execute("SELECT to_regclass('second')").fetchone() == (None,)
    (folder / "002_second.sql").write_text(whole)
    assert await migrate(empty_dsn, folder) == ["002_second.sql", "003_third.sql"]


async def test_a_file_that_fails_leaves_nothing(empty_dsn: str, folder: Path) -> None:
    (folder / "002_second.sql").write_text("CREATE TABLE second (id INT); SELECT 1/0;")
    with pytest.raises(MigrationError, match=r"002_second\.sql failed: division by zero") as caught:
        await migrate(empty_dsn, folder)
    assert caught.value.code == "migration_failed"
    found = await status(empty_dsn, folder)
    assert (found.applied, found.pending) == (["001_first.sql"], ["002_second.sql", "003_third.sql"])
    with psycopg.connect(empty_dsn) as connection:
        assert connection.execute("SELECT to_regclass('second')").fetchone() == (None,)


def edit(folder: Path) -> None:
    (folder / "002_second.sql").write_text("-- edited\n")


def rename(folder: Path) -> None:
    (folder / "002_second.sql").rename(folder / "002_other.sql")


def remove(folder: Path) -> None:
    (folder / "002_second.sql").unlink()


def duplicate(folder: Path) -> None:
    shutil.copy(folder / "003_third.sql", folder / "003_other.sql")


def forget_the_newest(folder: Path) -> None:
    (folder / "003_third.sql").unlink()


def misname(folder: Path) -> None:
    (folder / "4-fourth.sql").write_text("CREATE TABLE fourth (id INT);")


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        (edit, "migration_edited", "002_second.sql"),
        (rename, "migration_edited", "002_other.sql"),
        (remove, "migration_gap", "002"),
        (duplicate, "migration_duplicate", "003_other.sql"),
        (forget_the_newest, "database_newer", "003_third.sql"),
        (misname, "migration_refused", "4-fourth.sql"),
    ],
)
async def test_contradictions_are_refused_without_changes(
    empty_dsn: str, folder: Path, change: Callable[[Path], None], code: str, named: str
) -> None:
    await migrate(empty_dsn, folder)
    # A pending file, which must not be applied.
    (folder / "004_fourth.sql").write_text("CREATE TABLE fourth (id INT);")
    if change is forget_the_newest:
        (folder / "004_fourth.sql").unlink()
    before = everything(empty_dsn)
    change(folder)
    for act in (migrate, status):
        with pytest.raises(MigrationError) as caught:
            await act(empty_dsn, folder)
        assert caught.value.code == code
        assert named in caught.value.message
        assert caught.value.hint
    assert everything(empty_dsn) == before


async def test_a_missing_row_is_refused(empty_dsn: str, folder: Path) -> None:
    await migrate(empty_dsn, folder)
    with psycopg.connect(empty_dsn) as connection:
        connection.execute("DELETE FROM schema_migrations WHERE version = 2")
    before = everything(empty_dsn)
    with pytest.raises(MigrationError) as caught:
        await migrate(empty_dsn, folder)
    assert caught.value.code == "migration_gap"
    assert everything(empty_dsn) == before


async def test_a_refusal_leaves_an_empty_database_empty(empty_dsn: str, folder: Path) -> None:
    remove(folder)
    with pytest.raises(MigrationError):
        await migrate(empty_dsn, folder)
    assert everything(empty_dsn) == []


async def test_a_server_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable):
        await migrate(f"postgresql://postgres@/x?host={tmp_path}")


def test_the_migrations_of_the_project_are_complete() -> None:
    assert [m.version for m in migrations.load(migrations_folder())][:6] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_a_database_that_is_not_utf8_is_refused(postgres: str, encoding: str) -> None:
    name = f"test_{encoding.lower()}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING {encoding} LOCALE 'C'")
    dsn = make_url(postgres).set(database=name).render_as_string(hide_password=False)
    for ask in (migrate, status):
        with pytest.raises(MigrationError, match=encoding) as refused:
            await ask(dsn)
        assert (refused.value.code, name in refused.value.hint) == ("database_not_utf8", True)
    assert everything(dsn) == []
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name}")


async def test_a_server_that_is_too_old_is_refused(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(empty_dsn) as connection:
        version = connection.info.server_version
    monkeypatch.setattr(migrations, "OLDEST_SERVER", version + 1)
    with pytest.raises(MigrationError) as refused:
        await migrate(empty_dsn)
    assert refused.value.code == "database_too_old"
    monkeypatch.setattr(migrations, "OLDEST_SERVER", version)
    assert await migrate(empty_dsn) != []
