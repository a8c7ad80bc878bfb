"""Bytes of records that each user has sent: log lines, spans, test results and coverage.

To count the stored rows of a user takes a pass over all of them, so what is sent is added up instead, by day, for as
many days as log lines are kept. A process adds up in memory and writes the sums every few seconds, together with all
other processes; until then a user may exceed the limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.errors import DatabaseUnavailable, Kind, SandboxError

FLUSH_SECONDS = 5.0

_ADD = text("""
    INSERT INTO record_space (user_id, bytes)
    SELECT key, CAST(value AS bigint) FROM jsonb_each_text(CAST(:added AS jsonb)) ORDER BY key
        ON CONFLICT (user_id, day) DO UPDATE SET bytes = record_space.bytes + excluded.bytes
""")
_FULL = text("""
    SELECT user_id, sum(bytes) FROM record_space WHERE day > CURRENT_DATE - CAST(:days AS integer)
     GROUP BY user_id HAVING sum(bytes) >= :limit
""")

log = logging.getLogger(__name__)


class RecordSpace:
    """Counts bytes, and refuses users that have sent too many. Used from one event loop."""

    def __init__(self, db: Database, *, limit: int, days: int) -> None:
        """`limit` is the most bytes in so many `days`; 0 means no limit."""
        self._db = db
        self._limit = limit
        self._days = days
        self._added: Counter[str] = Counter()
        #: The users that have reached the limit, and their bytes.
        self._full: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to write sums and to read which users have reached the limit."""
        if self._limit:
            await self.flush()
            self._task = asyncio.create_task(self._flush_forever(), name="space of records")

    async def close(self) -> None:
        """Write the sums, and stop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            with contextlib.suppress(DatabaseUnavailable):
                await self.flush()

    def require(self, user_id: str) -> None:
        """Raise SandboxError `storage_limit` if the user has sent too much."""
        if user_id in self._full:
            raise SandboxError(
                f"{user_id} has sent {self._full[user_id]} bytes of records in {self._days} days, of the {self._limit} "
                f"that a user may send",
                hint="Send less, wait until a day of them is over, or ask the operator for more.",
                code="storage_limit",
                kind=Kind.TOO_LARGE,
            )

    def add(self, user_id: str, size: int) -> None:
        """Count bytes that were stored for the user."""
        if self._limit:
            self._added[user_id] += size

    def add_rows(self, user_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Count the bytes of rows."""
        self.add(user_id, sum(len(json.dumps(dict(row), default=str)) for row in rows))

    async def flush(self) -> None:
        """Write the sums, and read which users have reached the limit. Raises DatabaseUnavailable."""
        added, self._added = self._added, Counter()
        try:
            async with self._db.transaction() as connection:
                if added:
                    await connection.execute(_ADD, {"added": json.dumps(added)})
                rows = await connection.execute(_FULL, {"days": self._days, "limit": self._limit})
                self._full = {user_id: int(size) for user_id, size in rows.all()}
        except Exception:
            self._added += added
            raise

    async def _flush_forever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except DatabaseUnavailable as error:
                log.info("bytes of records could not be counted: %s", error)
            except Exception:
                log.exception("bytes of records could not be counted")
