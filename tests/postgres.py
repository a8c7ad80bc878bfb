"""Fixtures for PostgreSQL: one embedded server per test run, one migrated template, and a clone of it for each test.

A pytest plugin that `tests/conftest.py` loads. The server is started when the first test asks for it.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.engine import make_url

from sandbox.db.connection import Database
from sandbox.db.embedded import EmbeddedPostgres
from sandbox.db.embedded_host import Account, find_account
from sandbox.db.migrations import migrate

#: Test data need not survive a power failure.
FAST = ("fsync = off", "synchronous_commit = off", "full_page_writes = off")


def other_database(dsn: str, name: str) -> str:
    return make_url(dsn).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder that the user of PostgreSQL may traverse, with a path short enough for a UNIX socket."""
    folder = Path(tempfile.mkdtemp(prefix="p8-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
async def postgres(short_folder: Path) -> AsyncIterator[str]:
    """The URL of the embedded server's database `purple8`, which stays empty."""
    server = EmbeddedPostgres(short_folder / "home")
    dsn = await server.start()
    with psycopg.connect(dsn, autocommit=True) as connection:
        for setting in FAST:
            connection.execute(f"ALTER SYSTEM SET {setting}")
        connection.execute("SELECT pg_reload_conf()")
    yield dsn
    await server.stop()


@pytest.fixture(scope="session")
async def migrated_template(postgres: str) -> str:
    """The name of a database with all migrations applied. It has no connections, so that it can be cloned."""
    name = "migrated"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    await migrate(other_database(postgres, name))
    return name


@pytest.fixture
def empty_dsn(postgres: str) -> Iterator[str]:
    """The URL of a new, empty database."""
    yield from _new_database(postgres, "template1")


@pytest.fixture
def dsn(postgres: str, migrated_template: str) -> Iterator[str]:
    """The URL of a new, migrated database."""
    yield from _new_database(postgres, migrated_template)


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """A new, migrated database."""
    database = Database(dsn)
    yield database
    await database.close()


def _new_database(server: str, template: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield other_database(server, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def debian_postgres(short_folder: Path) -> Iterator[str]:
    """The URL of the database `postgres` of the distribution's server (version 15 on Debian 12), on a UNIX socket."""
    programs = _distribution_programs()
    account = find_account()
    folder = account.own(short_folder / "debian")
    data = folder / "data"
    settings = "".join(f" -c '{setting.replace(' ', '')}'" for setting in FAST)
    _run(account, programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
    options = f"-k {folder} -c listen_addresses= {settings}"
    _run(account, programs / "pg_ctl", "start", "-D", data, "-o", options, "-l", folder / "log", "-w")
    yield f"postgresql://postgres@/postgres?host={folder}"
    _run(account, programs / "pg_ctl", "stop", "-D", data, "-m", "fast", "-w")


@pytest.fixture
def debian_dsn(debian_postgres: str) -> Iterator[str]:
    """The URL of a new, empty database on the distribution's PostgreSQL."""
    yield from _new_database(debian_postgres, "template1")


def _distribution_programs() -> Path:
    installed = {int(p.name): p / "bin" for p in Path("/usr/lib/postgresql").glob("*") if p.name.isdigit()}
    usable = sorted(
        (v for v in installed if v >= 14 and (installed[v] / "initdb").exists()), key=lambda v: (v != 15, v)
    )
    if not usable:
        pytest.fail("PostgreSQL is not installed: apt-get install postgresql (version 15 on Debian 12)")
    return installed[min(usable, key=lambda version: (version != 15, version))]


def _run(account: Account, *command: object) -> None:
    done = account.run(*command)
    assert done.returncode == 0, done.stdout
