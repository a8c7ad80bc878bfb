"""Follows log lines as they are committed: no line is left out and none is sent twice.

Lines are sent in the order (transaction_id, log_id), and only those of transactions below the oldest one that is still
running. Below that horizon nothing is committed any more, so the position of the last line sent is all that a viewer
needs to go on. The price: a transaction that writes for long, in any database of the server, delays all later lines.

One reader per replica polls while there are viewers and keeps the newest lines in a short shared tail. A viewer that
resumes, or that has fallen behind the tail, reads pages from the table.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from itertools import takewhile

from sandbox.db.connection import Database
from sandbox.errors import DatabaseUnavailable
from sandbox.records import store
from sandbox.records.log_lines import Line, LogFilter, Position, read_page

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
#: Most lines, and bytes of lines, in the shared tail.
TAIL_LINES = 5_000
TAIL_BYTES = 16 * 1024 * 1024
#: A viewer whose filter matches nothing gets its position this often, so that it does not resume from long ago.
POSITION_SECONDS = 15.0


class LogTail:
    """Sends new log lines to viewers. One per application; not thread-safe."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._viewers = 0
        self._reader: asyncio.Task[None] | None = None
        self._closing = False
        self._changed = asyncio.Event()
        self._reset()

    def _reset(self) -> None:
        #: All transactions below it are over; 0 until the first poll.
        self._horizon = 0
        #: The tail has all lines after `_start` up to `_end`.
        self._start = self._end = Position(0, 0)
        self._lines: deque[Line] = deque()
        self._bytes = 0

    async def close(self) -> None:
        """End every stream. Viewers reconnect, to another replica, with Last-Event-ID and miss nothing."""
        self._closing = True
        self._notify()
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    async def position(self, last_event_id: str | None = None) -> Position:
        """Where a viewer begins: after its last event, else now. Raises InvalidInput and DatabaseUnavailable."""
        requested = Position.decode(last_event_id) if last_event_id else None
        now = Position(await store.log_horizon(self._db), 0)
        # A position ahead of now is of another database, or of this one before a backup was restored.
        return now if requested is None else min(requested, now)

    async def follow(self, wanted: LogFilter, position: Position) -> AsyncIterator[bytes]:
        """SSE events `log` after a position, without end; each item is one or more events."""
        self._join()
        sent_at = time.monotonic()
        try:
            while not self._closing:
                changed = self._changed
                behind = position < self._start
                if behind:
                    position, lines = await read_page(self._db, position, self._horizon, wanted)
                else:
                    lines = self._after(position, wanted)
                    position = max(position, self._end)
                if lines:
                    sent_at = time.monotonic()
                    yield b"".join(line.event for line in lines)
                elif time.monotonic() - sent_at > POSITION_SECONDS:
                    sent_at = time.monotonic()
                    yield f"id: {position.encode()}\n\n".encode()
                elif not behind:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(POSITION_SECONDS):
                            await changed.wait()
        finally:
            self._leave()

    def _after(self, position: Position, wanted: LogFilter) -> list[Line]:
        newest_first = takewhile(lambda line: line.position > position, reversed(self._lines))
        return [line for line in newest_first if wanted.matches(line)][::-1]

    def _join(self) -> None:
        self._viewers += 1
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_forever(), name="log tail")

    def _leave(self) -> None:
        self._viewers -= 1
        if self._viewers == 0 and self._reader is not None:
            self._reader.cancel()
            self._reader = None
            self._reset()

    async def _read_forever(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self._poll()
            except Exception as error:
                stack = not isinstance(error, DatabaseUnavailable)
                logger.warning("new log lines could not be read; trying again: %s", error, exc_info=stack)
            # However much there is to read, at least half of the time goes to others.
            await asyncio.sleep(max(POLL_SECONDS, time.monotonic() - began))

    async def _poll(self) -> None:
        """Put the lines of transactions that ended since the last poll into the tail."""
        horizon = await store.log_horizon(self._db)
        if not self._horizon:
            self._start = self._end = Position(horizon, 0)
            self._notify()
        self._horizon = horizon
        while self._end < Position(horizon, 0):
            self._end, lines = await read_page(self._db, self._end, horizon, LogFilter())
            self._lines.extend(lines)
            self._bytes += sum(len(line.event) for line in lines)
            while len(self._lines) > TAIL_LINES or self._bytes > TAIL_BYTES:
                oldest = self._lines.popleft()
                self._start = oldest.position
                self._bytes -= len(oldest.event)
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
