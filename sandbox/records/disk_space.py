"""Watches the free space of the folders to which the service, its database and its sandboxes write.

Below a reserve nothing new is begun (`require_room`), and exports of telemetry, which have no bound, are to be sent
again later. Everything that runs goes on: what it still has to write needs the rest. Both states, low and full, are
shown by the readiness probe and open an alert. An alert that cannot be stored, because the database is what has no
room, is stored once there is room again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from sandbox.db.connection import Database
from sandbox.domain.setting_formats import DiskReserve
from sandbox.errors import DatabaseUnavailable, SandboxError, Unavailable
from sandbox.records.alerts.store import Alerts
from sandbox.settings import Settings

log = logging.getLogger(__name__)

CHECK_SECONDS = 5.0
#: Free bytes below which a disk is full: PostgreSQL needs as much for its next WAL file.
FULL_BYTES = 16 * 1024 * 1024
#: A disk that was low is so until it has this many times the reserve.
RECOVERED = 1.1
BY_DISK = "disk space"

#: Finds a folder; None while it is not known, or if it is not on this machine. May block, may raise SandboxError.
FindFolder = Callable[[], Path | None]


class DiskState(IntEnum):
    """How much space the fullest disk has left. A higher value is worse."""

    OK = 0
    #: Less than the reserve: nothing new is begun.
    LOW = 1
    #: Nothing can be written.
    FULL = 2

    @property
    def code(self) -> str:
        return ("ok", "disk_low", "disk_full")[self]


class DiskLow(Unavailable):
    """There is less free disk space than the reserve."""

    code = "disk_low"


@dataclass(frozen=True, slots=True)
class _Disk:
    folder: Path
    free: int
    reserve: int


class DiskSpace:
    """Measures the disks every few seconds. Used from one event loop."""

    def __init__(
        self,
        db: Database,
        alerts: Alerts,
        reserve: DiskReserve,
        folders: Sequence[FindFolder],
        *,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._db = db
        self._alerts = alerts
        self._reserve = reserve
        self._unknown = list(folders)
        self._folders: list[Path] = []
        self._check_seconds = check_seconds
        self._fullest: _Disk | None = None
        self.state = DiskState.OK
        #: The alerts that are still to be opened, and the states whose alerts are open; None before the first report.
        self._to_open: dict[DiskState, dict[str, Any]] = {}
        self._open: set[DiskState] | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, db: Database, settings: Settings, folders: Sequence[FindFolder]) -> DiskSpace:
        """With the reserve of the settings, and their data folder beside these folders."""
        alerts = Alerts(notify=settings.alert_webhook_url is not None)
        return cls(db, alerts, DiskReserve.parse(settings.disk_reserve), [lambda: settings.home, *folders])

    async def start(self) -> None:
        await self.check()
        self._task = asyncio.create_task(self._check_forever(), name="disk space")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def has_room(self) -> bool:
        """Whether there is room for something new."""
        return self.state is DiskState.OK

    def require_room(self) -> None:
        """Raise DiskLow unless there is room for something new."""
        if self.has_room():
            return
        raise DiskLow(
            f"The disk is {'full' if self.state is DiskState.FULL else 'nearly full'}: {self._describe()}.",
            hint="Nothing new is begun until there is space: end sandboxes that are not needed, or free disk space.",
        )

    async def check(self) -> None:
        """Measure now, and open or resolve the alerts."""
        self._fullest = await asyncio.to_thread(self._measure)
        state = self._state()
        if state is not self.state:
            log.log(
                logging.WARNING if state else logging.INFO,
                "disk space: %s, was %s; %s",
                state.code,
                self.state.code,
                self._describe(),
            )
            self.state = state
        await self._report()

    async def _check_forever(self) -> None:
        while True:
            await asyncio.sleep(self._check_seconds)
            try:
                await self.check()
            except Exception:
                log.exception("the disk space could not be measured")

    def _measure(self) -> _Disk | None:
        """The disk that has the least space beyond its reserve."""
        for find in list(self._unknown):
            with contextlib.suppress(SandboxError):
                folder = find()
                if folder is not None:
                    self._folders.append(folder)
                    self._unknown.remove(find)
        disks = []
        for folder in self._folders:
            with contextlib.suppress(OSError):  # it was removed, or is not mounted at the moment
                usage = shutil.disk_usage(folder)
                disks.append(_Disk(folder, usage.free, self._reserve.of(usage.total)))
        return min(disks, key=lambda disk: disk.free - disk.reserve, default=None)

    def _state(self) -> DiskState:
        disk = self._fullest
        if self._db.is_full:
            return DiskState.FULL
        if disk is None or disk.reserve == 0:
            return DiskState.OK
        if disk.free < min(FULL_BYTES, disk.reserve):
            return DiskState.FULL
        wanted = disk.reserve * (RECOVERED if self.state else 1)
        return DiskState.LOW if disk.free < wanted else DiskState.OK

    def _describe(self) -> str:
        if self._fullest is None:
            return "the database has no space left"
        free, reserve = (f"{size / 2**20:,.0f} MiB" for size in (self._fullest.free, self._fullest.reserve))
        database = "; the database has no space left" if self._db.is_full else ""
        return f"{self._fullest.folder} has {free} free, the reserve is {reserve}{database}"

    async def _report(self) -> None:
        """Open the alerts of this state, and resolve those of others. What fails is done at the next check."""
        due = {state for state in (DiskState.LOW, DiskState.FULL) if state <= self.state}
        for state in due - (self._open or set()):
            self._to_open.setdefault(state, self._alert(state))
        over = (self._open if self._open is not None else {DiskState.LOW, DiskState.FULL}) - due
        if not self._to_open and not over:
            self._open = self._open or set()
            return
        try:
            async with self._db.transaction() as connection:
                for values in self._to_open.values():
                    await self._alerts.open(connection, values)
                for state in over:
                    await self._alerts.resolve_cause(connection, _cause(state), BY_DISK)
        except DatabaseUnavailable as error:
            log.info("alerts of disk space are stored later: %s", error)
            return
        self._open = ((self._open or set()) | set(self._to_open)) - over
        self._to_open.clear()

    def _alert(self, state: DiskState) -> dict[str, Any]:
        disk = self._fullest
        metadata: dict[str, Any] = {"cause": _cause(state)}
        if disk is not None:
            metadata |= {"folder": str(disk.folder), "free_bytes": disk.free, "reserve_bytes": disk.reserve}
        return {
            "severity": "critical" if state is DiskState.FULL else "warning",
            "title": f"{state.code}: {disk.folder if disk else 'database'}"[:200],
            "message": f"{self._describe()}. Nothing new is begun until there is space.",
            "source": BY_DISK,
            "metadata": metadata,
        }


def _cause(state: DiskState) -> str:
    return f"{state.code}:{socket.gethostname()}"
