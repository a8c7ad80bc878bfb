"""Detects that PostgreSQL is silent: that it runs, or its machine does, but answers nothing.

A server that has ended refuses connections at once. One that is frozen, or that is cut off, accepts them and answers
nothing, so everything that uses the database would wait without an end. The embedded server is replaced if it stays so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from sandbox.db.connection import Database
from sandbox.errors import DatabaseUnavailable

log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
#: How long the server may take to accept a connection. libpq counts in whole seconds, and at least two.
ANSWER_SECONDS = 2
#: Attempts in a row after which it is silent. One alone may fail because this process was frozen itself.
ATTEMPTS = 2
#: Attempts in a row after which it is replaced, and again after as many more: two minutes. Attempts are counted instead
#: of the time, which passes while this process or the whole machine is suspended.
REPLACE_ATTEMPTS = 60


class Liveness:
    """Opens a connection every second. Used from one event loop."""

    def __init__(self, db: Database, replace: Callable[[], Awaitable[None]]) -> None:
        """`replace()` replaces a server that stays silent, if that is possible."""
        self._db = db
        self._replace = replace
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._check_forever(), name="database liveness")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _check_forever(self) -> None:
        unanswered = 0
        while True:
            try:
                unanswered = 0 if await self._db.accepts_connections(ANSWER_SECONDS) else unanswered + 1
                if unanswered and unanswered % REPLACE_ATTEMPTS == 0:
                    await self._replace()
            except DatabaseUnavailable as error:
                log.error("%s", error)  # noqa: TRY400 - the message is sufficient without a stack trace
            except Exception:
                log.exception("the database could not be checked")
            if unanswered == ATTEMPTS:
                log.error("the database does not answer any more; what waits for it is ended")
                self._db.silence()
            elif unanswered == 0 and self._db.is_silent:
                log.warning("the database answers again")
                self._db.is_silent = False
            if unanswered == 0:
                await asyncio.sleep(CHECK_SECONDS)
