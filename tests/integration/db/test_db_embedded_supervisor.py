"""The embedded PostgreSQL is started again when it has ended by itself: once, and never twice at a time."""

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import psycopg
import pytest

from sandbox.db.connection import Database
from sandbox.db.embedded import EmbeddedPostgres
from sandbox.db.embedded_host import EmbeddedPostgresError
from sandbox.db.embedded_supervisor import LONGEST_PAUSE_SECONDS, PostgresSupervisor
from sandbox.errors import DatabaseFull, DatabaseUnavailable
from tests.integration.db.test_db_embedded import cleaned, running

DEADLINE_SECONDS = 60


@pytest.fixture
async def home(short_folder: Path) -> AsyncIterator[Path]:
    """A data folder whose server is stopped after the test."""
    async for place in cleaned(Path(tempfile.mkdtemp(dir=short_folder)) / "h"):
        place.parent.chmod(0o711)
        yield place


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def postmasters(home: Path) -> list[int]:
    """The pids of all servers of the data folder. Its other processes are their children."""
    folder = str((home / "postgres").resolve() / "data")
    found = []
    for process in psutil.process_iter(["name", "cwd", "ppid", "status"]):
        facts = process.info
        if facts["name"] == "postgres" and facts["cwd"] == folder and facts["status"] != psutil.STATUS_ZOMBIE:
            found.append((process.pid, facts["ppid"]))
    pids = {pid for pid, _ in found}
    return [pid for pid, parent in found if parent not in pids]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT], ids=["SIGKILL", "SIGQUIT"])
async def test_a_server_that_was_killed_is_started_once_by_several_services(home: Path, number: signal.Signals) -> None:
    dsn = await EmbeddedPostgres(home).start()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS value")
    before = (await running(home)).pid
    database = Database(dsn)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        await database.ping()
        for _ in range(3):
            supervisor = PostgresSupervisor(EmbeddedPostgres(home), check_seconds=0.05)
            await supervisor.start()
            stack.push_async_callback(supervisor.close)
        os.kill(before, number)
        # A command that is typed at the same moment.
        starter = asyncio.create_task(EmbeddedPostgres(home).start())
        most = 0

        async def answers() -> bool:
            nonlocal most
            most = max(most, len([pid for pid in postmasters(home) if pid != before]))
            try:
                await database.ping()
            except DatabaseUnavailable:
                return False
            return (await EmbeddedPostgres(home).status()).pid not in (None, before)

        await eventually(answers)
        assert await starter == dsn
    assert most <= 1
    assert len(postmasters(home)) == 1
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (1,)


async def test_a_server_that_was_stopped_on_purpose_stays_stopped(home: Path) -> None:
    server = EmbeddedPostgres(home)
    await server.start()
    await server.stop()
    assert not await server.revive()
    assert not (await server.status()).running
    assert (await server.status()).stopped
    await server.start()
    assert not (await server.status()).stopped
    os.kill((await running(home)).pid, signal.SIGKILL)

    async def ended() -> bool:
        return not (await server.status()).running

    await eventually(ended)
    assert await server.revive()


async def test_a_lock_file_that_a_killed_start_left_empty_does_not_matter(home: Path) -> None:
    server = EmbeddedPostgres(home)
    await server.start()
    left = (await running(home)).folder / "data" / "postmaster.pid"
    await server.stop()
    left.touch(0o600)
    os.utime(left, (0, 0))
    await server.start()


async def test_a_server_that_is_frozen_is_replaced_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one of several services; a server that answers is left alone."""
    monkeypatch.setattr("sandbox.db.embedded.SILENT_SECONDS", 2)
    monkeypatch.setattr("sandbox.db.embedded.END_SECONDS", 2)
    server = EmbeddedPostgres(home)
    dsn = await server.start()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS value")
        before = await running(home)
        assert not await server.replace_silent()
        assert (await running(home)).pid == before.pid
        frozen = [psutil.Process(before.pid), *psutil.Process(before.pid).children()]
        for process in frozen:
            process.suspend()
        replaced = await asyncio.gather(*(EmbeddedPostgres(home).replace_silent() for _ in range(3)))
    assert sorted(replaced) == [False, False, True]
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in frozen)
    assert postmasters(home) == [(await running(home)).pid]
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (1,)


async def test_a_server_that_was_stopped_on_purpose_is_not_replaced(home: Path) -> None:
    server = EmbeddedPostgres(home)
    await server.start()
    await server.stop()
    assert not await server.replace_silent()
    assert not (await server.status()).running


class Unstartable(EmbeddedPostgres):
    """A server that ends as soon as it is started, or cannot be."""

    def __init__(self, home: Path, error: DatabaseUnavailable | None = None) -> None:
        super().__init__(home)
        self.attempts: list[float] = []
        self._error = error

    async def revive(self) -> bool:
        self.attempts.append(asyncio.get_running_loop().time())
        if self._error:
            raise self._error
        return True


async def test_the_pauses_between_attempts_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        slept.append(seconds)
        await yielding(0)

    yielding = asyncio.sleep
    monkeypatch.setattr("sandbox.db.embedded_supervisor.time.monotonic", lambda: now)
    monkeypatch.setattr("sandbox.db.embedded_supervisor.asyncio.sleep", sleep)
    server = Unstartable(tmp_path, EmbeddedPostgresError("it does not start"))
    supervisor = PostgresSupervisor(server, check_seconds=0.001)
    await supervisor.start()
    while len(server.attempts) < 8:
        await yielding(0.001)
    await supervisor.close()
    pauses = [seconds for seconds in slept if seconds > 0.5]
    assert [round(pause) for pause in pauses[:4]] == [1, 3, 7, 15]
    assert max(pauses) <= LONGEST_PAUSE_SECONDS
    assert supervisor.explain() is None


async def test_a_server_that_the_full_disk_stops_is_explained(tmp_path: Path) -> None:
    server = Unstartable(
        tmp_path, DatabaseFull("PostgreSQL did not start, because its disk is full", hint="Free some.")
    )
    supervisor = PostgresSupervisor(server, check_seconds=0.01)
    database = Database("postgresql://postgres@/purple8?host=/nowhere", explain=supervisor.explain)
    with pytest.raises(DatabaseUnavailable) as before:
        await database.ping()
    assert before.value.code == "database_unavailable"
    await supervisor.start()

    async def explained() -> bool:
        return supervisor.explain() is not None

    await eventually(explained)
    await supervisor.close()
    with pytest.raises(DatabaseFull, match="disk is full"):
        await database.ping()
    await database.close()
