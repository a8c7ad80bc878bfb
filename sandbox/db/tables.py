"""What every table of records needs: pages newest first by keyset, one row, a new row, a change.

Statements are put together from a `Table`, which is a constant of a store; every value is bound.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database
from sandbox.db.driver import to_db, to_utc
from sandbox.errors import InvalidInput

#: Time and key of a row: unique together, and its place in the list.
Place = tuple[datetime, str]
Row = dict[str, Any]
#: A condition in SQL, and the values of its `:names`.
Condition = tuple[str, Mapping[str, Any]]

_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_BIGINT = 2**63 - 1


def _bigint(value: str) -> int:
    number = int(value)
    if not -_MAX_BIGINT <= number <= _MAX_BIGINT:
        raise ValueError("not a bigint")
    return number


#: SQL types of keys, and what reads one back from a cursor.
_KEY_TYPES: dict[str, Callable[[str], Any]] = {"bigint": _bigint, "uuid": UUID, "text": str}


@dataclass(frozen=True, slots=True)
class Table:
    """A table as its store sees it.

    `time` and then `keys` (name: SQL type) order the pages, newest first; without a `time` the keys alone do. `between`
    is the column that a span of time is about, where that is not `time`.
    """

    name: str
    columns: tuple[str, ...]
    keys: Mapping[str, str]
    time: str | None = None
    between: str | None = None
    #: The time columns are TIMESTAMPTZ, not TIMESTAMP.
    zoned: bool = False
    _select: str = field(init=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "_select", ", ".join(self.columns))

    async def page(
        self,
        db: Database,
        limit: int,
        *,
        equal: Mapping[str, Any] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after: Place | None = None,
        where: Sequence[Condition] = (),
    ) -> list[Row]:
        """One page: rows whose columns are `equal`, from `since` up to before `until`, that come after a place.

        Raises InvalidInput for a place that is none of this table.
        """
        conditions, values = ["TRUE"], dict[str, Any](limit=limit)
        for column, value in (equal or {}).items():
            conditions.append(f"{column} = :{column}")
            values[column] = value
        between = self.between or self.time
        for name, operator, moment in (("since", ">=", since), ("until", "<", until)):
            if moment is not None and between is not None:
                conditions.append(f"{between} {operator} :{name}")
                values[name] = self._moment(moment)
        for condition, more in where:
            conditions.append(condition)
            values.update(more)
        order = ([self.time] if self.time else []) + list(self.keys)
        if after is not None:
            names = [f":after_{index}" for index in range(len(order))]
            conditions.append(f"({', '.join(order)}) < ({', '.join(names)})")
            values.update(zip((name[1:] for name in names), self._read_place(after), strict=True))
        statement = (
            f"SELECT {self._select} FROM {self.name} WHERE {' AND '.join(conditions)} "
            f"ORDER BY {', '.join(f'{column} DESC' for column in order)} LIMIT :limit"
        )
        async with db.read() as connection:
            return [dict(row) for row in (await connection.execute(text(statement), values)).mappings()]

    def place(self, row: Row) -> Place:
        """Where in the list a row is."""
        return row[self.time] if self.time else _NO_TIME, json.dumps([str(row[key]) for key in self.keys])

    async def one(self, db: Database, equal: Mapping[str, Any]) -> Row | None:
        """The row with these values, if there is one."""
        statement = f"SELECT {self._select} FROM {self.name} WHERE {_all_equal(equal)}"
        async with db.read() as connection:
            row = (await connection.execute(text(statement), dict(equal))).mappings().first()
            return dict(row) if row else None

    async def insert(self, connection: AsyncConnection, values: Mapping[str, Any]) -> Row:
        """A new row as it is kept. Columns that are not given have their defaults."""
        names = list(values)
        statement = (
            f"INSERT INTO {self.name} ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)}) "
            f"RETURNING {self._select}"
        )
        return dict((await connection.execute(text(statement), _bound(values))).mappings().one())

    async def update(
        self, connection: AsyncConnection, equal: Mapping[str, Any], values: Mapping[str, Any]
    ) -> Row | None:
        """Change the row with these values; as it is kept then, or None if there is none."""
        changes = ", ".join(f"{name} = :new_{name}" for name in values)
        statement = f"UPDATE {self.name} SET {changes} WHERE {_all_equal(equal)} RETURNING {self._select}"
        bound = dict(equal) | {f"new_{name}": value for name, value in _bound(values).items()}
        row = (await connection.execute(text(statement), bound)).mappings().first()
        return dict(row) if row else None

    def _moment(self, value: datetime) -> datetime:
        # A bound of the column's own type lets the planner leave out partitions.
        return to_utc(value) if self.zoned else to_db(value)

    def _read_place(self, place: Place) -> list[Any]:
        try:
            keys = json.loads(place[1])
            read = [_KEY_TYPES[kind](key) for kind, key in zip(self.keys.values(), keys, strict=True)]
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidInput("cursor: not one that this list gave.", hint="Pass next_cursor on unchanged.") from error
        return ([self._moment(place[0])] if self.time else []) + read


def _all_equal(equal: Mapping[str, Any]) -> str:
    return " AND ".join(f"{name} = :{name}" for name in equal)


def _bound(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: Jsonb(value) if isinstance(value, dict | list) else value for name, value in values.items()}
