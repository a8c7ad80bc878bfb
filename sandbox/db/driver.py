"""What every connection to PostgreSQL has, pooled or not: UTC both ways, and the driver's errors translated.

Only psycopg is needed here: a process that does nothing but write rows starts without SQLAlchemy.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.datetime import DatetimeDumper, TimestampLoader
from psycopg.types.json import JsonbDumper

from sandbox.errors import DatabaseUnavailable, InvalidInput

#: Seconds until a server that does not answer counts as down.
CONNECT_TIMEOUT = 10
#: A connection that rested for so many seconds is asked whether it lives before it is used. Asking at every use would
#: double the cost of a short read.
IDLE_SECONDS = 1.0
#: Seconds after which the server ends a transaction that does nothing: a frozen replica must not keep its locks.
IDLE_TIMEOUT = 20
#: Plans are made for the values at hand: only then are partitions left out beforehand and rare values told from common
#: ones. Planning is a fraction of a millisecond.
_DEFAULTS = f"-c idle_in_transaction_session_timeout={IDLE_TIMEOUT}s -c plan_cache_mode=force_custom_plan"

#: SQLSTATE classes and codes that mean "not now": connection lost, shutting down, starting up, too many connections,
#: wrong credentials, no such database.
_UNAVAILABLE_STATES = ("08", "57P", "53300", "28", "3D000")


class OwnConnection:
    """One connection of somebody's own, made when it is first used and again when it was lost.

    `on_connect` is told of each that is made.
    """

    def __init__(
        self,
        dsn: str,
        *,
        application_name: str,
        on_connect: Callable[[psycopg.AsyncConnection], None] | None = None,
    ) -> None:
        self._params = connection_params(dsn, application_name)
        self._on_connect = on_connect
        self._connection: psycopg.AsyncConnection | None = None
        self._used = 0.0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[psycopg.AsyncConnection]:
        """The connection in a transaction. One at a time. Raises `DatabaseUnavailable`; the next use connects anew."""
        with translated_errors():
            connection = await self._living()
            async with connection.transaction():
                yield connection
        self._used = time.monotonic()

    async def _living(self) -> psycopg.AsyncConnection:
        if self._connection is not None:
            if not self._connection.closed and time.monotonic() - self._used < IDLE_SECONDS:
                return self._connection
            with suppress(psycopg.OperationalError):  # lost since it was last used
                await self._connection.execute("SELECT 1")
                return self._connection
        self._connection = await connect(self._params)
        if self._on_connect is not None:
            self._on_connect(self._connection)
        return self._connection


async def connect(params: dict[str, Any]) -> psycopg.AsyncConnection:
    """A connection in autocommit, with our types."""
    connection = await psycopg.AsyncConnection.connect(**params, autocommit=True)
    adapt(connection)
    return connection


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
    except psycopg.Error as error:
        if is_unavailable(error):
            raise unavailable(error) from error
        raise


def is_unavailable(error: psycopg.Error) -> bool:
    if error.sqlstate is None:
        # Said by the client library, not by the server: it could not connect, or lost the connection.
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith(_UNAVAILABLE_STATES)


def unavailable(cause: BaseException) -> DatabaseUnavailable:
    reason = " ".join(str(cause).split()) or type(cause).__name__
    return DatabaseUnavailable(
        f"PostgreSQL does not answer: {reason}",
        hint="Check that it runs and that DATABASE_URL is right, then try again.",
    )


def to_utc(value: datetime) -> datetime:
    """The aware UTC time of a TIMESTAMP value, which is UTC without saying so."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def to_db(value: datetime) -> datetime:
    """The naive UTC time that a TIMESTAMP column holds; needed for COPY only, which takes no heed of a zone."""
    return to_utc(value).replace(tzinfo=None)


class _UtcLoader(TimestampLoader):
    """TIMESTAMP columns hold UTC: load them as aware times."""

    def load(self, data: Buffer) -> datetime:
        try:
            # A page of records has hundreds of times; this is ten times as fast.
            return datetime.fromisoformat(f"{bytes(data).decode()}+00:00")
        except ValueError:
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
