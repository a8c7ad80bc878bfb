"""Periodic work that only one replica does at a time."""

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

#: How often the transaction that holds a lock is used; less than `driver.IDLE_TIMEOUT`.
KEEPALIVE_SECONDS = 3.0

_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended('periodic ' || :name, 0))")


@asynccontextmanager
async def exclusive(db: Database, name: str) -> AsyncIterator[bool]:
    """Try to hold the advisory lock of this name for the block; yields whether it was acquired.

    At most one block per name, among all replicas, runs with True. The lock belongs to a transaction, which is used
    every few seconds: PostgreSQL aborts an idle transaction, so a replica that hangs does not keep the lock.
    """
    async with db.transaction() as connection:
        if not (await connection.execute(_TRY_LOCK, {"name": name})).scalar_one():
            yield False
            return
        finished = asyncio.Event()
        keepalive = asyncio.create_task(_keep_alive(connection, finished))
        try:
            yield True
        finally:
            finished.set()
            await keepalive


async def _keep_alive(connection: AsyncConnection, finished: asyncio.Event) -> None:
    """Use the connection every `KEEPALIVE_SECONDS` until `finished` is set."""
    while True:
        try:
            async with asyncio.timeout(KEEPALIVE_SECONDS):
                await finished.wait()
        except TimeoutError:
            await connection.execute(text("SELECT 1"))
        else:
            return


class Periodic:
    """Does `work` at once and then every `interval_seconds`, unless another replica is doing it at that moment.

    A failure is logged, and the work is tried again after the interval; the same failure is not logged twice in a row.
    """

    def __init__(self, db: Database, name: str, interval_seconds: float, work: Callable[[], Awaitable[object]]) -> None:
        self.name = name
        self.interval_seconds = interval_seconds
        #: The error of the last attempt; None if it succeeded or there was none yet.
        self.failure: str | None = None
        self._db = db
        self._work = work
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"periodic {self.name}")

    async def close(self) -> None:
        """Stop. Work in progress is cancelled."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def once(self) -> bool:
        """Do the work now; returns False if another replica is doing it. Raises what the work raises."""
        async with exclusive(self._db, self.name) as acquired:
            if acquired:
                await self._work()
            return acquired

    async def _run(self) -> None:
        while True:
            try:
                await self.once()
            except Exception as error:  # noqa: BLE001 - any failure must leave the loop running
                failure = f"{type(error).__name__}: {error}"
                if failure != self.failure:
                    logger.warning("%s failed, and is tried again: %s", self.name, failure)
                self.failure = failure
            else:
                self.failure = None
            await asyncio.sleep(self.interval_seconds)
