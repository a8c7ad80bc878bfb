"""Keeps the embedded PostgreSQL alive while a service uses it.

Every service of a data folder does this. A lock makes one of them start the server, and the others find it
(`EmbeddedPostgres.revive`). A server that was stopped on purpose stays stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque

from sandbox.db.embedded import EmbeddedPostgres
from sandbox.errors import DatabaseFull, DatabaseUnavailable

log = logging.getLogger(__name__)

#: How often a service looks whether the server runs.
CHECK_SECONDS = 1.0
#: The longest pause between two attempts. Each attempt within `WINDOW_SECONDS` doubles it: 0, 1, 3, 7, 15, 30, 30, …
LONGEST_PAUSE_SECONDS = 30.0
WINDOW_SECONDS = 60.0


class PostgresSupervisor:
    """Starts the server again when it has ended. Used from one event loop."""

    def __init__(self, postgres: EmbeddedPostgres, *, check_seconds: float = CHECK_SECONDS) -> None:
        self._postgres = postgres
        self._check_seconds = check_seconds
        #: When the server was started, or was to be started, within the last `WINDOW_SECONDS`.
        self._attempts: deque[float] = deque()
        self._failure: DatabaseUnavailable | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._supervise(), name="PostgreSQL supervisor")

    async def close(self) -> None:
        """Stop supervising. The server goes on. An attempt that is under way is finished in its thread."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def explain(self) -> DatabaseUnavailable | None:
        """Why the server could not be started at the last attempt; None if it could."""
        failure = self._failure
        if isinstance(failure, DatabaseFull):
            return DatabaseFull(failure.message, hint=failure.hint)
        return None

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(self._check_seconds)
            try:
                await self._check()
            except DatabaseUnavailable as error:
                self._failure = error
                log.error("%s", error)  # noqa: TRY400 - the message is sufficient without a stack trace
            except Exception:
                log.exception("the embedded PostgreSQL could not be checked")

    async def _check(self) -> None:
        status = await self._postgres.status()
        if status.running or status.stopped:
            self._failure = None
            return
        if (pause := self._pause()) > 0:
            log.warning("the embedded PostgreSQL has ended again; it is started in %.0f s", pause)
            await asyncio.sleep(pause)
        self._attempts.append(time.monotonic())
        if await self._postgres.revive():
            log.warning("the embedded PostgreSQL had ended and was started again")
        self._failure = None

    def _pause(self) -> float:
        """Seconds until the next attempt."""
        now = time.monotonic()
        while self._attempts and now - self._attempts[0] > WINDOW_SECONDS:
            self._attempts.popleft()
        if not self._attempts:
            return 0.0
        pause = min(2.0 ** len(self._attempts) - 1, LONGEST_PAUSE_SECONDS)
        return max(0.0, self._attempts[-1] + pause - now)
