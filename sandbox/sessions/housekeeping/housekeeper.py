"""Periodic work of sessions, done by one replica at a time: expiry and old history, and sweeping the engine."""

from __future__ import annotations

import logging

from sandbox.db.connection import Database
from sandbox.db.periodic import Periodic
from sandbox.engine.base import Engine
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
        self._work = [
            Periodic(db, "expiry", EXPIRY_SECONDS, self._expire),
            Periodic(db, "session history", EXPIRY_SECONDS, self._drop_history),
            Periodic(db, "sweep", SWEEP_SECONDS, self._sweep),
        ]

    async def start(self) -> None:
        for periodic in self._work:
            periodic.start()

    async def close(self) -> None:
        for periodic in reversed(self._work):
            await periodic.close()

    async def _expire(self) -> None:
        async with self._db.transaction() as conn:
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
            dropped = await store.drop_history(conn, self._history_days)
        if dropped:
            log.info("dropped the history of %d sessions that ended long ago", dropped)

    async def _sweep(self) -> None:
        """Remove what no living session has. What cannot be read is not taken for nothing: then nothing is removed."""
        removed = await self._recovery.sweep()
        if removed:
            log.warning("swept %d stray resources off the engine", removed)
