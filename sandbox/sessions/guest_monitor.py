"""Asks every guest agent of a session at rest periodically whether it answers.

A container may run and yet do nothing, because it is paused or its guest agent hangs. No event of the engine reports
the latter.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from uuid import UUID

from sandbox.db.connection import Database
from sandbox.engine.base import Engine
from sandbox.engine.guest import Guest
from sandbox.errors import DatabaseUnavailable, GuestError
from sandbox.sessions.recovery import store
from sandbox.sessions.recovery.store import WatchedSession

log = logging.getLogger(__name__)

#: Pause between two rounds, and the longest that a guest agent may take to answer in one.
ROUND_SECONDS = 5.0
ANSWER_SECONDS = 5.0
#: Guest agents that are asked at the same time.
CONCURRENT_GUESTS = 32


class GuestMonitor:
    """Calls `check(session_id)` for sessions with a guest agent that does not answer, and for sessions in an error that
    may have passed. It decides nothing itself. Not thread-safe.
    """

    def __init__(self, db: Database, engine: Engine, check: Callable[[UUID], None]) -> None:
        self._db = db
        self._engine = engine
        self._check = check
        self._slots = asyncio.Semaphore(CONCURRENT_GUESTS)

    async def run(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            try:
                await self._ask_all()
            except DatabaseUnavailable as error:
                log.info("guest agents cannot be monitored now: %s", error)
            except Exception:
                log.exception("a round of the guest monitor failed; it will be tried again")
            await asyncio.sleep(ROUND_SECONDS)

    async def _ask_all(self) -> None:
        async with self._db.read() as conn:
            sessions = await store.guests(conn)
        await asyncio.gather(*(self._ask(session) for session in sessions))

    async def _ask(self, session: WatchedSession) -> None:
        # They are looked up before anything is waited for, because the engine keeps those of sessions that have ended.
        guests = [self._engine.guest(session.session_id, role) for role in session.roles]
        answers = await asyncio.gather(*map(self._answers, guests))
        if all(answers) is session.in_error:
            self._check(session.session_id)

    async def _answers(self, guest: Guest) -> bool:
        async with self._slots:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await guest.wait_ready(ANSWER_SECONDS)
            except (GuestError, TimeoutError):
                return False
        return True
