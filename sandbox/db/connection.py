"""The connection to PostgreSQL: one pool, UTC both ways, and driver errors translated once."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.datetime import DatetimeDumper, TimestampLoader
from psycopg.types.json import JsonbDumper
from sqlalchemy import event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from sandbox.errors import DatabaseUnavailable, InvalidInput

#: Seconds until a server that does not answer counts as down, and until a caller gives up waiting for the pool.
CONNECT_TIMEOUT = 10
POOL_TIMEOUT = 30
#: Seconds after which the server ends a transaction that does nothing: a frozen replica must not keep its locks.
IDLE_TIMEOUT = 20
_DEFAULTS = f"-c idle_in_transaction_session_timeout={IDLE_TIMEOUT}s"
#: A connection that rested for so long is asked whether it lives before it is used.
IDLE_SECONDS = 1.0
_IDLE_SINCE = "idle_since"

#: SQLSTATE classes and codes that mean "not now": connection lost, shutting down, starting up, too many connections,
#: wrong credentials, no such database.
_UNAVAILABLE_STATES = ("08", "57P", "53300", "28", "3D000")


class Database:
    """A pool of connections to one PostgreSQL.

    Made without connecting; the first use connects. It survives a restart of PostgreSQL: what was under way fails with
    `DatabaseUnavailable`, the next transaction connects anew. Every TIMESTAMP read is timezone-aware UTC, and aware
    times of any zone may be written; a `dict` parameter is sent as jsonb (wrap lists in `psycopg.types.json.Jsonb`).
    """

    def __init__(
        self,
        dsn: str,
        *,
        application_name: str = "purple8-sandbox",
        pool_size: int = 10,
        max_overflow: int = 20,
        pool_timeout: float = POOL_TIMEOUT,
    ) -> None:
        self._params = connection_params(dsn, application_name)
        #: Connections that the pool may have; who needs one more waits for `pool_timeout`.
        self.max_connections = pool_size + max_overflow
        self.engine = create_async_engine(
            URL.create("postgresql+psycopg"),
            connect_args=self._params,
            pool_size=pool_size,
            max_overflow=max_overflow,
            # Parameters may hold what callers keep secret; they have no place in a stack trace.
            hide_parameters=True,
            pool_timeout=pool_timeout,
        )

        dialect = self.engine.dialect
        self._reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")

        @event.listens_for(self.engine.sync_engine, "connect")
        def _on_connect(connection: Any, _record: object) -> None:
            adapt(connection)

        @event.listens_for(self.engine.sync_engine, "checkin")
        def _on_checkin(_connection: Any, record: ConnectionPoolEntry) -> None:
            record.info[_IDLE_SINCE] = time.monotonic()

        @event.listens_for(self.engine.sync_engine, "checkout")
        def _on_checkout(connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
            # Asked only after a rest: asking at every use (`pool_pre_ping`) doubles the cost of a short read.
            if time.monotonic() - record.info.get(_IDLE_SINCE, time.monotonic()) > IDLE_SECONDS:
                try:
                    dialect.do_ping(connection)
                except dialect.loaded_dbapi.Error as error:
                    raise DisconnectionError from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction: committed at the end of the block, rolled back by any exception.

        Raises `DatabaseUnavailable` when PostgreSQL does not answer, at entry or within the block.
        """
        with translated_errors():
            async with self.engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for single statements, each its own transaction: one round trip instead of three.

        For reads that need no common snapshot. Raises `DatabaseUnavailable` like `transaction`.
        """
        with translated_errors():
            async with self._reading.connect() as connection:
                yield connection

    @asynccontextmanager
    async def connect_raw(self) -> AsyncIterator[psycopg.AsyncConnection]:
        """A psycopg connection of its own, outside the pool, in autocommit: for LISTEN, COPY and advisory locks.

        Closed at the end of the block. Raises `DatabaseUnavailable` like `transaction`.
        """
        with translated_errors():
            connection = await psycopg.AsyncConnection.connect(**self._params, autocommit=True)
            adapt(connection)
            async with connection:
                yield connection

    async def ping(self) -> None:
        """Ask PostgreSQL for an answer. Raises `DatabaseUnavailable`."""
        async with self.transaction() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close the pool. Transactions still under way are broken off. Using the object again opens a new one."""
        await self.engine.dispose()


def connection_params(dsn: str, application_name: str = "purple8-sandbox") -> dict[str, Any]:
    """libpq's parameters for `dsn` (`postgresql://…`), with what every connection of ours has: UTC, keepalives, a name.

    Raises `InvalidInput` for a DSN that is none. What the DSN itself says wins, but for the time zone.
    """
    scheme, separator, rest = dsn.partition("://")
    try:
        given = conninfo_to_dict(f"{scheme.partition('+')[0]}{separator}{rest}")
    except psycopg.ProgrammingError:
        # Its text may quote the URL, password and all.
        raise InvalidInput(
            "the database URL cannot be read",
            hint="It has the form postgresql://USER:PASSWORD@HOST:PORT/DATABASE, special characters as %XX.",
            code="database_url_invalid",
        ) from None
    return {
        "application_name": application_name,
        "connect_timeout": CONNECT_TIMEOUT,
        "keepalives_idle": 30,
        **given,
        # PostgreSQL takes the last word: ours come before the caller's, but for the time zone.
        "options": f"{_DEFAULTS} {given.get('options', '')} -c timezone=UTC",
    }


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn "PostgreSQL does not answer" into `DatabaseUnavailable`; let every other error of the driver through."""
    try:
        yield
    except PoolTimeout as error:
        raise DatabaseUnavailable(
            "no database connection became free in time",
            hint="The service is overloaded or a transaction hangs; see pg_stat_activity.",
        ) from error
    except DBAPIError as error:
        original = error.orig
        if error.connection_invalidated or (isinstance(original, psycopg.Error) and _is_unavailable(original)):
            raise _unavailable(original or error) from error
        raise
    except psycopg.Error as error:
        if _is_unavailable(error):
            raise _unavailable(error) from error
        raise


def _is_unavailable(error: psycopg.Error) -> bool:
    if error.sqlstate is None:
        # Said by the client library, not by the server: it could not connect, or lost the connection.
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith(_UNAVAILABLE_STATES)


def _unavailable(cause: BaseException) -> DatabaseUnavailable:
    reason = " ".join(str(cause).split()) or type(cause).__name__
    return DatabaseUnavailable(
        f"PostgreSQL does not answer: {reason}",
        hint="Check that it runs and that DATABASE_URL is right, then try again.",
    )


def to_utc(value: datetime) -> datetime:
    """The aware UTC time of a TIMESTAMP value, which is UTC without saying so."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def to_db(value: datetime) -> datetime:
    """The naive UTC time that a TIMESTAMP column holds; needed for binary COPY only."""
    return to_utc(value).replace(tzinfo=None)


class _UtcLoader(TimestampLoader):
    """TIMESTAMP columns hold UTC: load them as aware times."""

    def load(self, data: Buffer) -> datetime:
        return super().load(data).replace(tzinfo=UTC)


class _UtcDumper(DatetimeDumper):
    """Send times in UTC: a TIMESTAMP column ignores the zone of a text that COPY gives it."""

    def dump(self, obj: datetime) -> Buffer | None:
        return super().dump(obj.astimezone(UTC) if obj.tzinfo else obj)


def adapt(connection: Any) -> None:
    """Give a psycopg connection our types: UTC times, and dicts as jsonb."""
    connection.adapters.register_loader("timestamp", _UtcLoader)
    connection.adapters.register_dumper(datetime, _UtcDumper)
    connection.adapters.register_dumper(dict, JsonbDumper)
