"""Writes rows of `logs` and `traces` in bulk; each row is a line for COPY."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import errors, sql

from sandbox.telemetry.rows import LOG_COLUMNS, SPAN_COLUMNS


class RowRefused(Exception):
    """PostgreSQL refuses one of the rows, so that a retry cannot succeed; no row of the batch was written."""


@dataclass(slots=True)
class Refusals:
    """Why rows were refused, one text for each row."""

    logs: list[str] = field(default_factory=list)
    spans: list[str] = field(default_factory=list)

    def __add__(self, other: Refusals) -> Refusals:
        return Refusals(self.logs + other.logs, self.spans + other.spans)


class RecordStore:
    """Writes batches of rows."""

    def __init__(self, transaction: Callable[[], AbstractAsyncContextManager[psycopg.AsyncConnection]]) -> None:
        """`transaction` is a context manager that yields a connection in a transaction."""
        self._transaction = transaction

    async def write(self, logs: Sequence[bytes], spans: Sequence[bytes]) -> None:
        """Write all rows or none. A span that is stored already stays as it is.

        Raises RowRefused, DatabaseUnavailable, or another psycopg error when the tables cannot be written now.
        """
        try:
            try:
                await self._write(logs, spans, staged=False)
            except errors.UniqueViolation:
                await self._write(logs, spans, staged=True)
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise RowRefused(str(error).strip()) from error

    async def write_acceptable(self, logs: Sequence[bytes], spans: Sequence[bytes]) -> Refusals:
        """Write all rows except those that PostgreSQL refuses, which are found by bisection.

        Raises what `write` raises, except RowRefused. Parts that are written by then stay written.
        """
        try:
            await self.write(logs, spans)
        except RowRefused as error:
            if len(logs) + len(spans) == 1:
                return Refusals([str(error)] * len(logs), [str(error)] * len(spans))
            if logs and spans:
                return await self.write_acceptable(logs, ()) + await self.write_acceptable((), spans)
            half_logs, half_spans = (len(logs) + 1) // 2, (len(spans) + 1) // 2
            return await self.write_acceptable(logs[:half_logs], spans[:half_spans]) + await self.write_acceptable(
                logs[half_logs:], spans[half_spans:]
            )
        return Refusals()

    async def _write(self, logs: Sequence[bytes], spans: Sequence[bytes], *, staged: bool) -> None:
        async with self._transaction() as connection, connection.cursor() as cursor:
            await _copy(cursor, "logs", LOG_COLUMNS, logs)
            if not staged:
                await _copy(cursor, "traces", SPAN_COLUMNS, spans)
                return
            await cursor.execute("CREATE TEMPORARY TABLE new_traces (LIKE traces INCLUDING DEFAULTS) ON COMMIT DROP")
            await _copy(cursor, "new_traces", SPAN_COLUMNS, spans)
            await cursor.execute("INSERT INTO traces SELECT * FROM new_traces ON CONFLICT DO NOTHING")


async def _copy(cursor: psycopg.AsyncCursor[Any], table: str, columns: Sequence[str], lines: Sequence[bytes]) -> None:
    if not lines:
        return
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    async with cursor.copy(statement) as copy:
        await copy.write(b"".join(lines))
