"""Writing rows of `logs` and `traces`, many at a time, by COPY."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import errors, sql

from sandbox.db.connection import Database
from sandbox.telemetry.rows import LOG_COLUMNS, SPAN_COLUMNS, AnyRow, ReadyRow

#: Rows encoded before the event loop gets its turn again: about a millisecond's worth.
_ROWS_AT_ONCE = 100
#: Rows that are ready cost no more than sending them.
_LINES_AT_ONCE = 500


class RowRefused(Exception):
    """PostgreSQL will not take one of the rows, however often it is asked; nothing of the batch was written."""


class RecordStore:
    """Writes batches."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def write(self, logs: Sequence[AnyRow], spans: Sequence[AnyRow]) -> None:
        """Write all or nothing. A span that is there already is left as it is.

        Raises RowRefused, DatabaseUnavailable, or another psycopg error when the tables cannot be written now.
        """
        try:
            try:
                await self._write(logs, spans, staged=False)
            except errors.UniqueViolation:
                await self._write(logs, spans, staged=True)
        except (psycopg.DataError, psycopg.IntegrityError, TypeError, ValueError, OverflowError) as error:
            raise RowRefused(str(error).strip()) from error

    async def _write(self, logs: Sequence[AnyRow], spans: Sequence[AnyRow], *, staged: bool) -> None:
        async with self._db.transaction() as connection:
            driver: psycopg.AsyncConnection[Any] | None = (await connection.get_raw_connection()).driver_connection
            if driver is None:
                raise psycopg.OperationalError("the connection is gone")
            async with driver.cursor() as cursor:
                await _copy(cursor, "logs", LOG_COLUMNS, logs)
                if not staged:
                    await _copy(cursor, "traces", SPAN_COLUMNS, spans)
                    return
                await cursor.execute(
                    "CREATE TEMPORARY TABLE new_traces (LIKE traces INCLUDING DEFAULTS) ON COMMIT DROP"
                )
                await _copy(cursor, "new_traces", SPAN_COLUMNS, spans)
                await cursor.execute("INSERT INTO traces SELECT * FROM new_traces ON CONFLICT DO NOTHING")


async def _copy(cursor: psycopg.AsyncCursor[Any], table: str, columns: Sequence[str], rows: Sequence[AnyRow]) -> None:
    if not rows:
        return
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    ready = [row.line for row in rows if isinstance(row, ReadyRow)]
    async with cursor.copy(statement) as copy:
        for first in range(0, len(ready), _LINES_AT_ONCE):
            await copy.write(b"".join(ready[first : first + _LINES_AT_ONCE]))
        others = [row for row in rows if not isinstance(row, ReadyRow)]
        for number, row in enumerate(others, start=1):
            await copy.write_row(row.values())
            if number % _ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
