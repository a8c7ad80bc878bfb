"""Work that is done again and again, by one replica at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database

logger = logging.getLogger(__name__)

BEAT_SECONDS = 3.0

_TRY = text("SELECT pg_try_advisory_xact_lock(hashtextextended('periodic ' || :name, 0))")


@asynccontextmanager
async def alone(db: Database, name: str) -> AsyncIterator[bool]:
    """Whether nobody else, in any replica, is within a block of this name; until its end nobody else will be.

    The lock is a transaction's, which is used every few seconds: PostgreSQL ends one that rests for long, so that a
    replica that hangs does not keep the others waiting.
    """
    async with db.transaction() as connection:
        if not (await connection.execute(_TRY, {"name": name})).scalar_one():
            yield False
            return
        over = asyncio.Event()
        beating = asyncio.create_task(_beat(connection, over))
        try:
            yield True
        finally:
            over.set()
            await beating


async def _beat(connection: AsyncConnection, over: asyncio.Event) -> None:
    while True:
        try:
            async with asyncio.timeout(BEAT_SECONDS):
                await over.wait()
        except TimeoutError:
            await connection.execute(text("SELECT 1"))
        else:
            return


class Periodic:
    """Does `work` at once and then every `interval_seconds`, unless another replica is doing it just then.

    A failure is logged, and the work tried again at its next turn; the same failure again is not logged again.
    """

    def __init__(self, db: Database, name: str, interval_seconds: float, work: Callable[[], Awaitable[object]]) -> None:
        self.name = name
        self.interval_seconds = interval_seconds
        #: What went wrong the last time; None if it went well or was not tried yet.
        self.failure: str | None = None
        self._db = db
        self._work = work
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"periodic {self.name}")

    async def close(self) -> None:
        """Stop; work under way is broken off."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def once(self) -> bool:
        """Do the work now; False if another replica is doing it. Its errors are passed on."""
        async with alone(self._db, self.name) as ours:
            if ours:
                await self._work()
            return ours

    async def _run(self) -> None:
        while True:
            try:
                await self.once()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next turn comes
                said = f"{type(error).__name__}: {error}"
                if said != self.failure:
                    logger.warning("%s failed, and is tried again: %s", self.name, said)
                self.failure = said
            else:
                self.failure = None
            await asyncio.sleep(self.interval_seconds)
