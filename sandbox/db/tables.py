"""SQL that every table of records needs: keyset pages newest first, one row by its key, insert and update.

Statements are built from a `Table`, which is a constant of a store. Every value is passed as a bound parameter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database
from sandbox.db.cursors import Cursor, invalid_cursor
from sandbox.db.day_partitions import FilledDays, TimeRange
from sandbox.db.driver import to_db, to_utc

Row = dict[str, Any]
#: A condition in SQL, and the values of its `:names`.
Condition = tuple[str, Mapping[str, Any]]

#: Most bytes of the rows of a page, as text. A page has at least one row, whatever its size.
PAGE_BYTES = 4 * 1024 * 1024

_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_BIGINT = 2**63 - 1


def _bigint(value: str) -> int:
    number = int(value)
    _require(-_MAX_BIGINT <= number <= _MAX_BIGINT)
    return number


def _text(value: str) -> str:
    value.encode()  # PostgreSQL accepts neither lone surrogates nor NUL.
    _require("\0" not in value)
    return value


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError("not a key of this list")


#: For each SQL type of a key, the function that reads a value from a cursor.
_KEY_TYPES: dict[str, Callable[[str], Any]] = {"bigint": _bigint, "uuid": UUID, "text": _text}


class Rows(list[Row]):
    """The rows of a page."""

    #: Whether more rows were left out than the limit asked for, because they would have exceeded PAGE_BYTES.
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table as its store uses it.

    Pages are ordered by `time` and then by `keys` (name: SQL type), newest first; without a `time`, by the keys only.
    `between` is the column that `since` and `until` refer to, if that is not `time`.
    """

    name: str
    columns: tuple[str, ...]
    keys: Mapping[str, str]
    time: str | None = None
    between: str | None = None
    #: True if the time columns are TIMESTAMPTZ, false if they are TIMESTAMP.
    zoned: bool = False
    #: True if the table is partitioned by day of `time`.
    by_day: bool = False
    _select: str = field(init=False, default="")
    _order: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "_select", ", ".join(self.columns))
        object.__setattr__(self, "_order", (*((self.time,) if self.time else ()), *self.keys))

    async def page(
        self,
        db: Database,
        limit: int,
        *,
        equal: Mapping[str, Any] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after: Cursor | None = None,
        where: Sequence[Condition] = (),
    ) -> Rows:
        """One page: rows whose columns are `equal`, from `since` up to before `until`, that come after a cursor.

        It has at most `limit` rows, and at most PAGE_BYTES.

        Raises InvalidInput for a cursor of another table.
        """
        values: dict[str, Any] = {}
        conditions = [f"{column} = :{column}" for column in equal or {}]
        values.update(equal or {})
        for condition, more in where:
            conditions.append(condition)
            values.update(more)
        position = self._position(after) if after is not None else None
        if position is not None:
            names = [f"after_{index}" for index in range(len(position))]
            conditions.append(f"({', '.join(self._order)}) < ({', '.join(f':{name}' for name in names)})")
            values.update(zip(names, position, strict=True))
        start, end = (moment and self._moment(moment) for moment in (since, until))
        async with db.read() as connection:
            if not self.by_day:
                rows = Rows()
                await self._read_range(connection, conditions, values, TimeRange(start, end), limit, rows)
                return rows
            if position is not None and position[0] < (end or datetime.max):
                # The condition on the position implies this bound, but only the bound makes the planner leave out
                # the partitions of later days.
                end = position[0] + timedelta(microseconds=1)
            filled = await FilledDays.read(connection, self.name)
            rows, size = Rows(), 0
            for time_range in filled.ranges(start, end):
                size = await self._read_range(connection, conditions, values, time_range, limit, rows, size)
                if len(rows) == limit or rows.cut:
                    break
            return rows

    async def _read_range(
        self,
        connection: AsyncConnection,
        conditions: Sequence[str],
        values: Mapping[str, Any],
        time_range: TimeRange,
        limit: int,
        rows: Rows,
        size: int = 0,
    ) -> int:
        """Add the newest rows of a range of time to `rows`, whose size is given; return the new size in bytes."""
        conditions, bound = list(conditions), dict(values) | {"limit": limit - len(rows), "bytes": PAGE_BYTES - size}
        between = self.between or self.time
        for name, operator, moment in (("since", ">=", time_range.start), ("until", "<", time_range.end)):
            if moment is not None and between is not None:
                conditions.append(f"{between} {operator} :{name}")
                bound[name] = moment
        order = ", ".join(f"{column} DESC" for column in self._order)
        statement = (
            f"SELECT {self._select}, size, total FROM ("
            f"SELECT page.*, row_number() OVER sorted AS place, count(*) OVER () AS total,"
            f" sum(octet_length(CAST(page AS text))) OVER sorted AS size FROM ("
            f"SELECT {self._select} FROM {self.name} WHERE {' AND '.join(conditions) or 'TRUE'} "
            f"ORDER BY {order} LIMIT :limit) AS page WINDOW sorted AS (ORDER BY {order} ROWS UNBOUNDED PRECEDING)"
            f") AS sized WHERE size <= :bytes OR place = 1 ORDER BY {order}"
        )
        found = (await connection.execute(text(statement), bound)).all()
        if not found:
            return size
        # The first row is always read. It counts only if the page would be empty without it.
        kept = [] if rows and found[0].size > bound["bytes"] else found
        rows += [dict(zip(self.columns, row, strict=False)) for row in kept]
        rows.cut = len(kept) < found[0].total
        return size + int(found[-1].size)

    def cursor(self, row: Row) -> Cursor:
        """The cursor of a row. It is valid for lists of this table only."""
        return row[self.time] if self.time else _NO_TIME, json.dumps([self.name, *(str(row[key]) for key in self.keys)])

    async def one(self, db: Database, equal: Mapping[str, Any]) -> Row | None:
        """The row with these values, or None."""
        statement = f"SELECT {self._select} FROM {self.name} WHERE {_all_equal(equal)}"
        async with db.read() as connection:
            row = (await connection.execute(text(statement), dict(equal))).mappings().first()
            return dict(row) if row else None

    async def insert(self, connection: AsyncConnection, values: Mapping[str, Any]) -> Row:
        """Insert a row and return it as stored. Columns that are not given get their defaults."""
        names = list(values)
        statement = (
            f"INSERT INTO {self.name} ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)}) "
            f"RETURNING {self._select}"
        )
        return dict((await connection.execute(text(statement), _bound(values))).mappings().one())

    async def update(
        self, connection: AsyncConnection, equal: Mapping[str, Any], values: Mapping[str, Any]
    ) -> Row | None:
        """Change the row with these values and return it as stored, or None if there is no such row."""
        changes = ", ".join(f"{name} = :new_{name}" for name in values)
        statement = f"UPDATE {self.name} SET {changes} WHERE {_all_equal(equal)} RETURNING {self._select}"
        bound = dict(equal) | {f"new_{name}": value for name, value in _bound(values).items()}
        row = (await connection.execute(text(statement), bound)).mappings().first()
        return dict(row) if row else None

    def _moment(self, value: datetime) -> datetime:
        # A bound of the column's own type lets the planner leave out partitions.
        return to_utc(value) if self.zoned else to_db(value)

    def _position(self, cursor: Cursor) -> list[Any]:
        """The values of the ordering columns that a cursor stands for."""
        time, key = cursor
        try:
            table, *keys = json.loads(key)
            _require(table == self.name)
            read = [_KEY_TYPES[kind](key) for kind, key in zip(self.keys.values(), keys, strict=True)]
            return ([self._moment(time)] if self.time else []) + read
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise invalid_cursor() from error


def _all_equal(equal: Mapping[str, Any]) -> str:
    return " AND ".join(f"{name} = :{name}" for name in equal)


def _bound(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: Jsonb(value) if isinstance(value, dict | list) else value for name, value in values.items()}
