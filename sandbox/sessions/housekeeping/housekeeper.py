"""Periodic work of sessions, done by one replica at a time: expiry, deletion of history, removal of stray resources."""

from __future__ import annotations

import logging
import time

from sandbox.db.connection import Database
from sandbox.db.periodic import Periodic
from sandbox.engine.base import Engine
from sandbox.errors import EngineError
from sandbox.secrets.environments import Environments
from sandbox.sessions.housekeeping import store
from sandbox.sessions.housekeeping.app_activity import touch_sessions_with_output
from sandbox.sessions.housekeeping.encryption import encrypt_sessions
from sandbox.sessions.housekeeping.refusals import RefusalReports
from sandbox.sessions.recovery import store as session_events
from sandbox.sessions.recovery.service import RecoveryService

log = logging.getLogger(__name__)

EXPIRY_SECONDS = 3.0
SWEEP_SECONDS = 60.0
EGRESS_SECONDS = 30.0
REFUSALS_SECONDS = 10.0
ENCRYPTION_SECONDS = 300.0


class Housekeeper:
    """Runs the periodic work. Every change is idempotent, so an interrupted pass is simply repeated."""

    def __init__(
        self, db: Database, engine: Engine, recovery: RecoveryService, environments: Environments, *, history_days: int
    ) -> None:
        self._db = db
        self._environments = environments
        self._engine = engine
        self._recovery = recovery
        self._history_days = history_days
        self._work = [
            Periodic(db, "expiry", EXPIRY_SECONDS, self._expire),
            Periodic(db, "session history", EXPIRY_SECONDS, self._drop_history),
            Periodic(db, "sweep", SWEEP_SECONDS, self._sweep),
            Periodic(db, "egress", EGRESS_SECONDS, self._guard_egress),
            Periodic(db, "egress refusals", REFUSALS_SECONDS, self._report_refusals),
            Periodic(db, "encryption", ENCRYPTION_SECONDS, self._encrypt),
        ]
        #: Why the rules could not be put in force at the last attempt, to log it once.
        self._unguarded = ""
        self._refusals = RefusalReports()

    async def start(self) -> None:
        for periodic in self._work:
            periodic.start()

    async def close(self) -> None:
        for periodic in reversed(self._work):
            await periodic.close()

    async def _expire(self) -> None:
        async with self._db.transaction() as conn:
            active = await touch_sessions_with_output(conn, self._engine)
            warned = await store.warn(conn)
            expired = await store.expire(conn)
            await store.drop_unused_archives(conn)
        for session_id in active:
            log.debug("session is active: its apps print", extra={"session_id": str(session_id)})
        for session_id in warned:
            log.info("session is about to expire", extra={"session_id": str(session_id)})
        for session_id in expired:
            log.info("session expired", extra={"session_id": str(session_id)})

    async def _drop_history(self) -> None:
        """Delete one batch in each pass, so that a large backlog does not slow down other work."""
        async with self._db.transaction() as conn:
            dropped = await store.drop_history(conn, self._history_days)
        if dropped:
            log.info("deleted the history of %d sessions", dropped)

    async def _sweep(self) -> None:
        """Remove stray resources. Nothing is removed if the database or the engine cannot be read."""
        removed = await self._recovery.sweep()
        if removed:
            log.warning("removed %d stray resources from the engine", removed)

    async def _encrypt(self) -> None:
        """Encrypt what an earlier release stored in plain text, and again what an earlier key encrypts."""
        sessions = await encrypt_sessions(self._db, self._environments)
        secrets = await self._environments.secrets.renew_seals()
        if sessions or secrets:
            log.info("encrypted the environments of %d sessions, and %d secrets", sessions, secrets)

    async def _guard_egress(self) -> None:
        """Put the rules of what sandboxes may reach in force again, in case something on the host removed them."""
        try:
            present = await self._engine.guard_egress()
        except EngineError as error:
            if error.message != self._unguarded:
                log.warning("%s; they may reach the host and private networks", error, extra={"code": error.code})
            self._unguarded = error.message
            return
        if not present or self._unguarded:
            log.info("the rules of what sandboxes may reach are in force")
        self._unguarded = ""

    async def _report_refusals(self) -> None:
        """Append what the rules have refused to the events of the sessions that tried it."""
        try:
            refusals = await self._engine.take_refusals()
        except EngineError as error:
            if error.code != "egress_unavailable":  # which `_guard_egress` reports
                raise
            return
        for session_id, events in self._refusals.due(refusals, time.monotonic()).items():
            async with self._db.transaction() as conn:
                await session_events.append_events(conn, session_id, events)
