"""Free disk space: the states, what is refused in each, and the alerts, also while they cannot be stored."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database
from sandbox.domain.setting_formats import DiskReserve
from sandbox.engine.docker.errors import unreachable
from sandbox.errors import DatabaseFull
from sandbox.projects.archive import ArchiveKind
from sandbox.projects.service import ProjectService, Runtimes
from sandbox.records.alerts.store import Alerts
from sandbox.records.disk_space import FULL_BYTES, DiskLow, DiskSpace, DiskState
from sandbox.sessions.create_request import CreateRequest
from sandbox.sessions.limits import SessionLimits
from sandbox.sessions.service import SessionService
from sandbox.settings import Settings
from sandbox.workers import Workers
from tests.fakes.world import CALLER, World, one_role

GIB = 1 << 30
TOTAL = 100 * GIB
RESERVE = DiskReserve(bytes=GIB)


class Disk:
    """A disk and a database on it, which refuses to write while `database_full`."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self._database = database
        self.free = 50 * GIB
        self.database_full = False
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=TOTAL, free=self.free))

    @property
    def is_full(self) -> bool:
        return self.database_full

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        if self.database_full:
            raise DatabaseFull("no space left")
        async with self._database.transaction() as connection:
            yield connection

    def space(self, reserve: DiskReserve = RESERVE) -> DiskSpace:
        return DiskSpace(cast("Database", self), Alerts(notify=False), reserve, [lambda: Path("/data")])

    async def alerts(self) -> list[tuple[str, str]]:
        """The kind and the status of each alert."""
        async with self._database.read() as connection:
            rows = await connection.execute(text("SELECT metadata->>'cause', status FROM alerts ORDER BY alert_id"))
            return [(cause.partition(":")[0], status) for cause, status in rows]


@pytest.fixture
async def disk(shared_database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Disk]:
    yield Disk(shared_database, monkeypatch)
    async with shared_database.transaction() as connection:
        await connection.execute(text("DELETE FROM alerts WHERE source = 'disk space'"))


async def test_below_the_reserve_nothing_new_is_begun(disk: Disk) -> None:
    space = disk.space()
    await space.check()
    space.require_room()
    disk.free = GIB - 1
    await space.check()
    assert space.state is DiskState.LOW
    with pytest.raises(DiskLow, match=r"/data has 1,024 MiB free"):
        space.require_room()
    assert await disk.alerts() == [("disk_low", "active")]
    # A little more than the reserve is not enough: the state would change all the time.
    disk.free = GIB + 1
    await space.check()
    assert space.state.code == "disk_low"
    disk.free = 2 * GIB
    await space.check()
    assert space.state.code == "ok"
    space.require_room()
    assert await disk.alerts() == [("disk_low", "resolved")]


async def test_an_alert_that_cannot_be_stored_is_stored_later(disk: Disk) -> None:
    space = disk.space()
    disk.free, disk.database_full = FULL_BYTES - 1, True
    await space.check()
    assert space.state is DiskState.FULL
    assert await disk.alerts() == []
    disk.free, disk.database_full = 50 * GIB, False
    await space.check()
    await space.check()
    assert await disk.alerts() == [("disk_low", "resolved"), ("disk_full", "resolved")]


async def test_a_database_without_space_is_a_full_disk_wherever_it_is(disk: Disk) -> None:
    space = disk.space(DiskReserve())
    disk.database_full = True
    await space.check()
    assert space.state is DiskState.FULL
    with pytest.raises(DiskLow, match="the database has no space left"):
        space.require_room()


async def test_alerts_of_an_earlier_process_are_resolved(disk: Disk) -> None:
    disk.free = 1
    await disk.space().check()
    assert ("disk_full", "active") in await disk.alerts()
    disk.free = 50 * GIB
    await disk.space().check()
    assert {status for _, status in await disk.alerts()} == {"resolved"}


async def test_a_folder_is_measured_once_it_is_known(disk: Disk) -> None:
    known = False

    def find() -> Path | None:
        if not known:
            raise unreachable("not yet")
        return Path("/engine")

    space = DiskSpace(cast("Database", disk), Alerts(notify=False), RESERVE, [find])
    disk.free = 0
    await space.check()
    assert space.state.code == "ok"
    known = True
    await space.check()
    assert space.state.code == "disk_full"


@pytest.mark.parametrize(
    ("given", "least"), [("0", 0), ("512M", 512 << 20), ("2G", 2 * GIB), ("5%", 5 * GIB), ("1000", 1000)]
)
def test_the_reserve_is_a_size_or_a_share(given: str, least: int) -> None:
    assert DiskReserve.parse(Settings(disk_reserve=given).disk_reserve).of(TOTAL) == least


@pytest.mark.parametrize("given", ["", "1T", "100%", "-1", "lots"])
def test_another_reserve_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="a share of the disk"):
        Settings(disk_reserve=given)


async def test_sessions_and_projects_need_room(world: World, tmp_path: Path) -> None:
    session = await world.launched(one_role())

    def refuse() -> None:
        raise DiskLow("nearly full")

    limits = SessionLimits(idle_timeout_seconds=0, max_lifetime_seconds=0, sessions_per_user=1000)
    projects = cast("ProjectService", world.projects)
    parts = (world.db, world.engine, projects, limits, ["python312"])
    sessions = SessionService(*parts, environments=world.environments, require_room=refuse)
    with pytest.raises(DiskLow):
        await sessions.create(CALLER, CreateRequest(), None)
    with pytest.raises(DiskLow):
        await sessions.relaunch(CALLER, session.session_id)
    uploads = ProjectService(world.db, cast("Runtimes", None), Settings(), Workers(), require_room=refuse)
    with pytest.raises(DiskLow):
        await uploads.put(CALLER, "site", tmp_path / "archive", ArchiveKind.TAR_GZ)
    # What runs goes on.
    guest, _ = await sessions.guest(CALLER, session.session_id, None)
    await guest.write_file("note", b"kept")
