"""The registration of this replica: its number, and the advisory lock that shows that it is alive.

PostgreSQL releases the lock when the connection of this process breaks, so when the process dies other replicas can
claim its work at once. A lost connection is made again under the same number.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from contextlib import AsyncExitStack

import psycopg

from sandbox.db.connection import Database
from sandbox.errors import DatabaseUnavailable
from sandbox.sessions import store

log = logging.getLogger(__name__)

CHECK_SECONDS = 2.0
_LOCK = "SELECT pg_advisory_lock(%s, %s)"


class Replica:
    """One replica of the service. `start` registers it; `number` is valid after that."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._connections = AsyncExitStack()
        self._conn: psycopg.AsyncConnection | None = None
        self._lock_task: asyncio.Task[None] | None = None
        self.number = 0

    async def start(self) -> None:
        self._conn = await self._connections.enter_async_context(self._db.connect_raw())
        cursor = await self._conn.execute(
            "INSERT INTO replicas (hostname) VALUES (%s) RETURNING replica_no", (socket.gethostname(),)
        )
        (self.number,) = await cursor.fetchone() or (0,)
        await self._conn.execute(_LOCK, (store.REPLICA_LOCK, self.number))
        self._lock_task = asyncio.create_task(self._hold_lock(), name="replica-lock")

    async def close(self) -> None:
        """Release the lock, so that other replicas can claim the unfinished work."""
        if self._lock_task:
            self._lock_task.cancel()
            await asyncio.wait({self._lock_task})
        with contextlib.suppress(psycopg.Error, DatabaseUnavailable):
            if self._conn:
                await self._conn.execute("DELETE FROM replicas WHERE replica_no = %s", (self.number,))
            await self._connections.aclose()

    async def _hold_lock(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                if self._conn is None:
                    self._conn = await self._connections.enter_async_context(self._db.connect_raw())
                    await self._conn.execute(_LOCK, (store.REPLICA_LOCK, self.number))
                    log.info("acquired the replica's lock again")
                await self._conn.execute("SELECT 1")
            except (psycopg.Error, DatabaseUnavailable) as error:
                log.warning("the replica's lock connection is lost; reconnecting", extra={"cause": str(error)})
                self._conn = None
                with contextlib.suppress(psycopg.Error, DatabaseUnavailable):
                    await self._connections.aclose()
