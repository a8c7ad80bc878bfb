"""The pool of connections to PostgreSQL: times in UTC, and errors of the driver translated in one place."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from weakref import WeakSet

import psycopg
from sqlalchemy import event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from sandbox.db import driver
from sandbox.errors import DatabaseFull, DatabaseUnavailable

#: Seconds that a caller waits for a connection of the pool.
POOL_TIMEOUT = 30
#: How often closing looks whether all connections have been given back, and seconds between.
RETURN_ATTEMPTS = 200
RETURN_SECONDS = 0.01
#: Seconds for which a write that the disk had no room for counts, unless there is another. The recorder tries again
#: more often than this while it has rows.
FULL_SECONDS = 15.0
_IDLE_SINCE = "idle_since"


class Database:
    """A pool of connections to one PostgreSQL.

    The constructor does not connect; the first use does. It survives a restart of PostgreSQL: transactions in progress
    fail with `DatabaseUnavailable`, the next one connects again. Every TIMESTAMP is read as timezone-aware UTC, and
    aware times of any zone may be written. A `dict` parameter is sent as jsonb (wrap lists in
    `psycopg.types.json.Jsonb`).
    """

    def __init__(
        self,
        dsn: str,
        *,
        application_name: str = "purple8-sandbox",
        pool_size: int = 10,
        max_overflow: int = 20,
        pool_timeout: float = POOL_TIMEOUT,
        explain: Callable[[], DatabaseUnavailable | None] = lambda: None,
    ) -> None:
        """`explain` may know better than a connection why PostgreSQL does not answer; its error is raised then."""
        self._explain = explain
        self._full_at: float | None = None
        #: Whether PostgreSQL answers nothing, not even with an error (`liveness.py`).
        self.is_silent = False
        #: The connections that are in use.
        self._in_use: WeakSet[psycopg.AsyncConnection] = WeakSet()
        self._params = driver.connection_params(dsn, application_name)
        #: The largest number of connections; a caller that needs one more waits for `pool_timeout` seconds.
        self.max_connections = pool_size + max_overflow
        self.engine = create_async_engine(
            URL.create("postgresql+psycopg"),
            connect_args=self._params,
            pool_size=pool_size,
            max_overflow=max_overflow,
            # Parameters may be secret and must not appear in a stack trace.
            hide_parameters=True,
            pool_timeout=pool_timeout,
        )

        dialect = self.engine.dialect
        self._reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")

        @event.listens_for(self.engine.sync_engine, "connect")
        def _on_connect(connection: Any, _record: object) -> None:
            driver.adapt(connection)

        @event.listens_for(self.engine.sync_engine, "checkin")
        def _on_checkin(connection: Any, record: ConnectionPoolEntry) -> None:
            record.info[_IDLE_SINCE] = time.monotonic()
            if connection is not None:
                self._in_use.discard(connection.driver_connection)

        @event.listens_for(self.engine.sync_engine, "checkout")
        def _on_checkout(connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
            self._in_use.add(connection.driver_connection)
            # Instead of `pool_pre_ping`, which costs a round trip at every use.
            if time.monotonic() - record.info.get(_IDLE_SINCE, time.monotonic()) > driver.IDLE_SECONDS:
                try:
                    dialect.do_ping(connection)
                except dialect.loaded_dbapi.Error as error:
                    raise DisconnectionError from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction: committed at the end of the block, rolled back by any exception.

        Raises `DatabaseUnavailable` when PostgreSQL does not answer, at entry or within the block.
        """
        with self._translated_errors():
            async with self.engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for single statements, each its own transaction: one round trip instead of three.

        For reads that need no common snapshot. Raises `DatabaseUnavailable` like `transaction`.
        """
        with self._translated_errors():
            async with self._reading.connect() as connection:
                yield connection

    @asynccontextmanager
    async def driver_transaction(self) -> AsyncIterator[psycopg.AsyncConnection]:
        """Like `transaction`, but yields the connection of psycopg, which has COPY."""
        async with self.transaction() as pooled:
            connection = (await pooled.get_raw_connection()).driver_connection
            if connection is None:
                raise DatabaseUnavailable("the connection is gone", hint="Try again.")
            yield connection

    @asynccontextmanager
    async def connect_raw(self) -> AsyncIterator[psycopg.AsyncConnection]:
        """A new psycopg connection outside the pool, in autocommit: for LISTEN, COPY and advisory locks.

        Closed at the end of the block. Raises `DatabaseUnavailable` like `transaction`.
        """
        with self._translated_errors():
            async with await driver.connect(self._params) as connection:
                self._in_use.add(connection)
                try:
                    yield connection
                finally:
                    self._in_use.discard(connection)

    async def accepts_connections(self, seconds: int) -> bool:
        """Whether PostgreSQL answers a new connection within so many seconds, if only by refusing it."""
        try:
            connection = await driver.connect(self._params | {"connect_timeout": seconds})
        except psycopg.errors.ConnectionTimeout:
            return False
        except psycopg.Error:
            return True
        await connection.close()
        return True

    def silence(self) -> None:
        """Note that PostgreSQL answers nothing: whatever waits for it fails now, and what comes later fails at once."""
        self.is_silent = True
        for connection in list(self._in_use):
            if not connection.closed:
                # A copy of the descriptor, because the connection closes its own.
                with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as copy:
                    copy.shutdown(socket.SHUT_RDWR)

    async def ping(self) -> None:
        """Run a trivial statement. Raises `DatabaseUnavailable`."""
        async with self.transaction() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close the pool. Transactions in progress are aborted. Using the object again opens a new pool."""
        # The connection of a caller that was cancelled may be on its way back to the pool, in a task of SQLAlchemy's.
        for _ in range(RETURN_ATTEMPTS):
            if not self._pooled_in_use():
                break
            await asyncio.sleep(RETURN_SECONDS)
        await self.engine.dispose()

    def _pooled_in_use(self) -> int:
        pool = self.engine.pool
        return pool.checkedout() if isinstance(pool, QueuePool) else 0

    @property
    def is_full(self) -> bool:
        """Whether a write has failed in the last `FULL_SECONDS` because the disk is full."""
        return self._full_at is not None and time.monotonic() - self._full_at < FULL_SECONDS

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Raise `DatabaseUnavailable` for errors that mean PostgreSQL does not answer; pass every other error on."""
        if self.is_silent:
            raise DatabaseUnavailable(
                "PostgreSQL runs and does not answer.",
                hint="See whether it is frozen, out of memory or cut off; the service goes on when it answers.",
            )
        try:
            with _translated_errors():
                yield
        except DatabaseFull:
            self._full_at = time.monotonic()
            raise
        except DatabaseUnavailable as error:
            known = self._explain()
            if known is None:
                raise
            if isinstance(known, DatabaseFull):
                self._full_at = time.monotonic()
            raise known from error


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Raise `DatabaseUnavailable` for errors that mean PostgreSQL does not answer; pass every other error on."""
    try:
        with driver.translated_errors():
            yield
    except PoolTimeout as error:
        raise DatabaseUnavailable(
            "no database connection became free in time",
            hint="The service is overloaded or a transaction hangs; see pg_stat_activity.",
        ) from error
    except DBAPIError as error:
        original = error.orig
        if error.connection_invalidated or (isinstance(original, psycopg.Error) and driver.is_unavailable(original)):
            raise driver.unavailable(original or error) from error
        if isinstance(original, psycopg.DataError) and driver.is_unstorable(original):
            raise driver.unstorable(original) from error
        raise
