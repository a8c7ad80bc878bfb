"""Log lines as they are committed: none left out and none twice, however long its writer's transaction stays open.

Ids are taken before they are committed, so the highest id that was told is no place in this stream. A place is a pair
of PostgreSQL's snapshots: what the older one shows was told, what the newer one shows is to be told. Where to begin
looking is known from the transactions that hold the table's lock: a line that is not committed yet has an id above
those that were taken before its writer was first seen. (A snapshot does not know savepoints. Nothing here writes lines
under one; such a line of somebody else's may be told of too early to be seen, and so be left out.)

One reader a replica, while somebody looks, however many do. What it reads is encoded once and kept in a short tail; a
viewer that fell behind the tail reads pages from the table instead, as does one that resumes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

from sandbox.db.connection import Database
from sandbox.db.tables import Row
from sandbox.errors import DatabaseUnavailable, InvalidInput
from sandbox.records import store

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
PAGE = 500
#: Lines, and bytes of them, that the shared tail keeps.
TAIL = 5_000
TAIL_BYTES = 16 * 1024 * 1024
#: A viewer who is told nothing for so long is told where it is, so that resuming does not begin long ago.
PLACE_SECONDS = 15.0
#: Writers that were open before the first look may have taken ids so far back.
_REACH = 100_000

_SNAPSHOT = r"[0-9]{1,19}:[0-9]{1,19}:(?:[0-9]{1,19}(?:,[0-9]{1,19}){0,500})?"
_PLACE = re.compile(rf"([0-9]{{1,18}})/([0-9]{{1,18}})/({_SNAPSHOT})/({_SNAPSHOT})")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a viewer is: of what `until` shows and `seen` does not, ids up to `after` were told; then from `low` on."""

    seen: str
    until: str
    after: int
    low: int

    def encode(self) -> str:
        return f"{self.after}/{self.low}/{self.seen}/{self.until}"

    @classmethod
    def decode(cls, text: str) -> Place:
        """Raises InvalidInput for what is no place."""
        match = _PLACE.fullmatch(text)
        if match is None or not (_is_snapshot(match[3]) and _is_snapshot(match[4])):
            raise InvalidInput(
                "Last-Event-ID is not an id of this stream",
                hint="Send the `id:` of the last event seen.",
                code="event_id_invalid",
            )
        return cls(match[3], match[4], int(match[1]), int(match[2]))

    def settled(self) -> Place:
        """The place when everything that `until` shows was told."""
        return Place(self.until, self.until, self.low, self.low)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a viewer wants to see; None is everything."""

    user_id: str | None = None
    level: str | None = None
    service: str | None = None

    def takes(self, line: Wanted) -> bool:
        """Whether a line that has these values is wanted."""
        return (
            self.user_id in (None, line.user_id)
            and self.level in (None, line.level)
            and self.service in (None, line.service)
        )


class _Writers:
    """Remembers where the lines of open transactions may begin."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._begins: dict[str, int] = {}

    def low(self, look: store.Look) -> int:
        """Lines that are not committed at this look have ids above this."""
        before = max(0, look.last_id - _REACH) if self._last is None else self._last
        self._begins = {writer: self._begins.get(writer, before) for writer in look.writers}
        self._last = look.last_id
        return min([look.last_id, *self._begins.values()])


@dataclass(frozen=True, slots=True)
class _Line:
    has: Wanted
    place: Place
    encoded: bytes


class LogTail:
    """Tells viewers of new log lines. One an application."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._viewers = 0
        self._reader: asyncio.Task[None] | None = None
        self._closing = False
        self._forget()

    def _forget(self) -> None:
        self._writers = _Writers()
        self._place: Place | None = None
        self._lines: deque[_Line] = deque()
        self._bytes = 0
        #: Lines ever put into the tail; looks begun; and, of the last look that ended, its number, lines and place.
        self._told = self._looks = 0
        self._settled: tuple[int, int, Place] | None = None
        self._changed = asyncio.Event()

    async def close(self) -> None:
        """End every stream; viewers reconnect (elsewhere) with Last-Event-ID and miss nothing."""
        self._closing = True
        self._wake()
        await self._stop()

    async def place(self) -> Place:
        """Where one who begins to look now begins. Raises DatabaseUnavailable."""
        if self._settled is not None:
            return self._settled[2]
        look = await store.look(self._db)
        low = _Writers().low(look)
        return Place(look.snapshot, look.snapshot, low, low)

    async def follow(self, wanted: Wanted, place: Place) -> AsyncIterator[bytes]:
        """Encoded events `log` from a place on, without end. Several a yield when behind."""
        self._join()
        try:
            while not self._closing:
                async for line in self._catch_up(wanted, place):
                    place = line.place
                    yield line.encoded
                settled = await self._next_settled()
                if settled is None:
                    return
                _, number, at = settled
                async for line in self._catch_up(wanted, place.settled(), at):
                    yield line.encoded
                place = at
                async for told, encoded in self._live(wanted, number, at):
                    place = told
                    yield encoded
        finally:
            self._leave()

    async def _catch_up(self, wanted: Wanted, place: Place, target: Place | None = None) -> AsyncIterator[_Line]:
        """From the table: what is left of the place's own snapshot, or all up to the target's."""
        if target is not None:
            place = replace(place, until=target.until, low=target.low)
        while True:
            rows = await self._read(place, wanted)
            for row in rows:
                place = replace(place, after=row["log_id"])
                yield _encode(row, place)
            if len(rows) < PAGE:
                return

    async def _live(self, wanted: Wanted, number: int, place: Place) -> AsyncIterator[tuple[Place, bytes]]:
        """From the tail, until it has gone on without us; where we are then, and what was told."""
        quiet_since = time.monotonic()
        while not self._closing:
            changed, first = self._changed, self._told - len(self._lines)
            if number < first:
                return
            ready = [line for line in islice(self._lines, number - first, None) if wanted.takes(line.has)]
            if self._told > number and self._lines:
                number, place = self._told, self._lines[-1].place
            if ready:
                quiet_since = time.monotonic()
                yield place, b"".join(line.encoded for line in ready)
            elif time.monotonic() - quiet_since > PLACE_SECONDS and self._settled and self._settled[1] == number:
                quiet_since, place = time.monotonic(), self._settled[2]
                yield place, f"id: {place.encode()}\n\n".encode()
            else:
                await changed.wait()

    def _join(self) -> None:
        self._viewers += 1
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_on(), name="log tail")

    def _leave(self) -> None:
        self._viewers -= 1
        if self._viewers == 0 and self._reader is not None:
            self._reader.cancel()
            self._reader = None
            self._forget()

    async def _stop(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    async def _next_settled(self) -> tuple[int, int, Place] | None:
        """The end of a look that begins after this call: no place that anybody has been told of is after it."""
        least = self._looks + 1
        while not self._closing:
            if self._settled is not None and self._settled[0] >= least:
                return self._settled
            await self._changed.wait()
        return None

    async def _read_on(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self._look()
            except DatabaseUnavailable as error:
                logger.warning("log lines could not be read for those who follow; trying again: %s", error)
            except Exception:
                logger.exception("log lines could not be read for those who follow; trying again")
            # However much there is to be read, the database has as much time without us.
            await asyncio.sleep(max(LOOK_SECONDS, time.monotonic() - began))

    async def _look(self) -> None:
        """Put what was committed since the last look into the tail. One that was broken off is gone on with."""
        place = self._place
        if place is None or place.seen == place.until:
            self._looks += 1
            look = await store.look(self._db)
            low = self._writers.low(look)
            before = place or Place(look.snapshot, look.snapshot, low, low)
            place = self._place = Place(before.until, look.snapshot, before.low, low)
        more = True
        while more:
            rows = await self._read(place, Wanted())
            for row in rows:
                place = self._place = replace(place, after=row["log_id"])
                self._add(_encode(row, place))
            self._wake()
            more = len(rows) == PAGE
        self._place = place.settled()
        self._settled = self._looks, self._told, self._place
        self._wake()

    def _add(self, line: _Line) -> None:
        self._lines.append(line)
        self._told += 1
        self._bytes += len(line.encoded)
        while len(self._lines) > TAIL or self._bytes > TAIL_BYTES:
            self._bytes -= len(self._lines.popleft().encoded)

    async def _read(self, place: Place, wanted: Wanted) -> list[Row]:
        if place.seen == place.until:
            return []
        return await store.committed_logs(self._db, place.seen, place.until, place.after, PAGE, asdict(wanted))

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _encode(row: Row, place: Place) -> _Line:
    body = json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=_time)
    encoded = f"id: {place.encode()}\nevent: log\ndata: {body}\n\n".encode()
    return _Line(Wanted(row["user_id"], row["level"], row["service"]), place, encoded)


def _time(value: Any) -> str:
    if not isinstance(value, datetime):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return value.isoformat().replace("+00:00", "Z")


def _is_snapshot(text: str) -> bool:
    lowest, next_, running = text.split(":")
    xids = [int(lowest), *(int(xid) for xid in running.split(",") if xid), int(next_)]
    return xids[0] > 0 and xids[-1] < 2**63 and xids == sorted(xids) and len(xids[1:]) == len(set(xids[1:]))
