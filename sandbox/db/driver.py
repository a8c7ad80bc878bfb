"""What all connections to PostgreSQL have in common, pooled or not: times in UTC, and translated errors.

Imports psycopg only, so that a process which just writes rows starts without SQLAlchemy.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.datetime import DatetimeDumper, TimestampLoader
from psycopg.types.json import JsonbDumper

from sandbox.errors import DatabaseFull, DatabaseUnavailable, InvalidInput

log = logging.getLogger(__name__)

#: Seconds after which a server that does not answer counts as down.
CONNECT_TIMEOUT = 10
#: A connection that was idle for this many seconds is tested before it is used. A test at every use would double the
#: cost of a short read.
IDLE_SECONDS = 1.0
#: Seconds after which the server aborts an idle transaction: a replica that hangs must not keep its locks.
IDLE_TIMEOUT = 20
#: Statements are planned for their actual values: only then can the planner leave out partitions and distinguish rare
#: values from common ones. Planning takes a fraction of a millisecond.
_DEFAULTS = f"-c idle_in_transaction_session_timeout={IDLE_TIMEOUT}s -c plan_cache_mode=force_custom_plan"

#: SQLSTATE classes and codes that mean "not now": connection lost, shutting down, starting up, too many connections,
#: wrong credentials, no such database.
_UNAVAILABLE_STATES = ("08", "57P", "53300", "28", "3D000")
#: SQLSTATE of a write for which the file system has no room.
_DISK_FULL = "53100"
#: A text that is too long, a number or time out of range, bytes or escapes that no text may have.
_UNSTORABLE = frozenset({"22001", "22003", "22008", "22021", "22P05"})
FULL_HINT = "Free disk space on the machine of the database. Nothing is lost that was acknowledged; try again then."


class OwnConnection:
    """A single connection outside a pool. It is opened at the first use, and again when it was lost.

    Not safe for concurrent use.
    """

    def __init__(self, dsn: str, *, application_name: str) -> None:
        self._params = connection_params(dsn, application_name)
        self._connection: psycopg.AsyncConnection | None = None
        self._used = 0.0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[psycopg.AsyncConnection]:
        """The connection in a transaction. Raises `DatabaseUnavailable`; the next use connects again."""
        with translated_errors():
            connection = await self._open()
            async with connection.transaction():
                yield connection
        self._used = time.monotonic()

    async def _open(self) -> psycopg.AsyncConnection:
        """The connection if it still works, else a new one."""
        if self._connection is not None:
            if not self._connection.closed and time.monotonic() - self._used < IDLE_SECONDS:
                return self._connection
            with suppress(psycopg.OperationalError):  # The connection was lost since it was last used.
                await self._connection.execute("SELECT 1")
                return self._connection
        self._connection = await connect(self._params)
        return self._connection


async def connect(params: dict[str, Any]) -> psycopg.AsyncConnection:
    """A connection in autocommit with the types of `adapt`."""
    connection = await psycopg.AsyncConnection.connect(**params, autocommit=True)
    adapt(connection)
    return connection


def connection_params(dsn: str, application_name: str = "purple8-sandbox") -> dict[str, Any]:
    """libpq's parameters for `dsn` (`postgresql://…`), with our defaults: application name, timeouts, keepalives, UTC.

    Parameters in the DSN take precedence, except for the time zone. Raises `InvalidInput` for an invalid DSN.
    """
    scheme, separator, rest = dsn.partition("://")
    try:
        given = conninfo_to_dict(f"{scheme.partition('+')[0]}{separator}{rest}")
    except psycopg.ProgrammingError:
        # The text of the error may quote the URL with its password.
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
        # The last occurrence of an option wins: our defaults come before the DSN's options, the time zone after them.
        "options": f"{_DEFAULTS} {given.get('options', '')} -c timezone=UTC",
    }


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise `DatabaseUnavailable` for errors that mean PostgreSQL does not answer; pass every other error on.

    If the task is cancelled in the block, CancelledError is raised whatever the block raises: the rollback that follows
    a cancellation can fail, and its error would hide the cancellation from a task that goes on after errors.
    """
    task = _current_task()
    cancelled_before = task.cancelling() if task else 0
    try:
        yield
    except Exception as error:
        if task and task.cancelling() > cancelled_before:
            raise asyncio.CancelledError from error
        if isinstance(error, psycopg.Error) and is_unavailable(error):
            raise unavailable(error) from error
        raise


def _current_task() -> asyncio.Task[Any] | None:
    """The task that runs; None outside an event loop."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def is_unavailable(error: psycopg.Error) -> bool:
    """Whether the error means that PostgreSQL does not answer, or not now."""
    if error.sqlstate is None:
        # The error comes from the client library, which could not connect or lost the connection.
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith((*_UNAVAILABLE_STATES, _DISK_FULL))


def unavailable(cause: BaseException) -> DatabaseUnavailable:
    """The error to raise for `cause`."""
    reason = " ".join(str(cause).split()) or type(cause).__name__
    if isinstance(cause, psycopg.Error) and cause.sqlstate == _DISK_FULL:
        return DatabaseFull(f"PostgreSQL has no disk space left: {reason}", hint=FULL_HINT)
    return DatabaseUnavailable(
        f"PostgreSQL does not answer: {reason}",
        hint="Check that it runs and that DATABASE_URL is right, then try again.",
    )


def is_unstorable(cause: psycopg.DataError) -> bool:
    """Whether a value is what PostgreSQL refuses, and not a statement of ours or a check of a function."""
    # Without a state, psycopg itself has refused to send the value.
    return cause.sqlstate is None or cause.sqlstate in _UNSTORABLE


def unstorable(cause: psycopg.DataError) -> InvalidInput:
    """The error for a value that PostgreSQL cannot store, such as a text with a NUL or a number that is too large.

    Requests are checked before; this is what is left of input when a check was forgotten.
    """
    log.warning("PostgreSQL refuses a value: %s", " ".join(str(cause).split()))
    return InvalidInput(
        "A value cannot be stored: it has a NUL, or is beyond what its field holds.", hint="Correct the request."
    )


def to_utc(value: datetime) -> datetime:
    """The time as timezone-aware UTC; a naive time is taken as UTC."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def to_db(value: datetime) -> datetime:
    """The naive UTC time that a TIMESTAMP column holds. COPY needs it, because it ignores the zone of a value."""
    return to_utc(value).replace(tzinfo=None)


class _UtcLoader(TimestampLoader):
    """Loads TIMESTAMP values as timezone-aware UTC."""

    def load(self, data: Buffer) -> datetime:
        try:
            # Ten times as fast as the base class, which matters for a page with hundreds of times.
            return datetime.fromisoformat(f"{bytes(data).decode()}+00:00")
        except ValueError:
            return super().load(data).replace(tzinfo=UTC)


class _UtcDumper(DatetimeDumper):
    """Sends times in UTC: a TIMESTAMP column ignores the zone of a text that comes by COPY."""

    def dump(self, obj: datetime) -> Buffer | None:
        return super().dump(obj.astimezone(UTC) if obj.tzinfo else obj)


def adapt(connection: Any) -> None:
    """Register our types with a psycopg connection: UTC times, and dicts as jsonb."""
    connection.adapters.register_loader("timestamp", _UtcLoader)
    connection.adapters.register_dumper(datetime, _UtcDumper)
    connection.adapters.register_dumper(dict, JsonbDumper)
