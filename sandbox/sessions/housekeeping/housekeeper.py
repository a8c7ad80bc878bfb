"""Periodic work, done by one replica at a time and by another when that one is gone."""

from __future__ import annotations

import asyncio
import logging
import time

from sandbox.db.connection import Database
from sandbox.engine.base import Engine
from sandbox.errors import SandboxError
from sandbox.sessions.housekeeping import store
from sandbox.sessions.housekeeping.app_activity import note_app_output
from sandbox.sessions.recovery.service import RecoveryService

log = logging.getLogger(__name__)

EXPIRY_SECONDS = 3.0
SWEEP_SECONDS = 60.0


class Housekeeper:
    """`start` and `close`. Every change it makes is idempotent, so a turn that is cut short is simply taken again."""

    def __init__(self, db: Database, engine: Engine, recovery: RecoveryService, *, history_days: int) -> None:
        self._db = db
        self._engine = engine
        self._recovery = recovery
        self._history_days = history_days
        self._swept = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="housekeeper")

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=3)

    async def _run(self) -> None:
        while True:
            try:
                await self._expire()
                await self._drop_history()
                if time.monotonic() - self._swept >= SWEEP_SECONDS:
                    await self._sweep()
            except SandboxError as error:
                log.warning("housekeeping is done later: %s", error)
            except Exception:
                log.exception("housekeeping failed; it will be tried again")
            await asyncio.sleep(EXPIRY_SECONDS)

    async def _expire(self) -> None:
        async with self._db.transaction() as conn:
            if not await store.take_turn(conn):
                return
            active = await note_app_output(conn, self._engine)
            warned = await store.warn(conn)
            expired = await store.expire(conn)
            await store.drop_unused_archives(conn)
        for session_id in active:
            log.debug("session is in use: its apps print", extra={"session_id": str(session_id)})
        for session_id in warned:
            log.info("session is about to expire", extra={"session_id": str(session_id)})
        for session_id in expired:
            log.info("session expired", extra={"session_id": str(session_id)})

    async def _drop_history(self) -> None:
        """One batch a turn: what has piled up is gone in a while, and costs nobody else anything."""
        async with self._db.transaction() as conn:
            dropped = await store.drop_history(conn, self._history_days) if await store.take_turn(conn) else 0
        if dropped:
            log.info("dropped the history of %d sessions that ended long ago", dropped)

    async def _sweep(self) -> None:
        """Remove what no living session has. What cannot be read is not taken for nothing: then nothing is removed."""
        async with self._db.transaction() as conn:
            if not await store.take_turn(conn):
                return
            removed = await self._recovery.sweep()
        self._swept = time.monotonic()
        if removed:
            log.warning("swept %d stray resources off the engine", removed)
