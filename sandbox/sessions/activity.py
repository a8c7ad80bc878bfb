"""The activity of sessions: noted when it happens, and written for all sessions together."""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

from sandbox.db.connection import Database
from sandbox.errors import DatabaseUnavailable
from sandbox.sessions import store

log = logging.getLogger(__name__)

#: How often it is written.
TOUCH_SECONDS = 2.0


class Activity:
    """Notes which sessions were used. Used from one event loop."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._touched: set[UUID] = set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._write(), name="session-activity")

    async def close(self) -> None:
        """Stop, and write what is left."""
        if self._task:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._flush()

    def touch(self, session_id: UUID) -> None:
        """Note that a session is used now."""
        self._touched.add(session_id)

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(TOUCH_SECONDS)
            await self._flush()

    async def _flush(self) -> None:
        touched, self._touched = self._touched, set()
        if not touched:
            return
        try:
            async with self._db.transaction() as conn:
                await store.touch(conn, sorted(touched))
        except DatabaseUnavailable as error:
            self._touched |= touched
            log.info("the activity of sessions could not be written and will be later: %s", error)
