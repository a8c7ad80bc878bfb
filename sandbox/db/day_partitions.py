"""Tables partitioned by day: which ranges of time to query for the newest rows.

A page of a list is read from the newest day that has rows, then from the five days before it, then from the twenty-five
before those, and so on until it is full. PostgreSQL plans each range by the statistics of its partitions: where a value
is common, the first range fills the page; where it is rare, the plan is one that reads the few rows there are. A query
over all days at once would be planned as if the matching rows were spread evenly, and would read on and on in order of
time where few rows match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

DAY = timedelta(days=1)
#: Each range has this many times the days of the one before, which keeps the number of queries small.
_GROWTH = 5
_PARTITION = re.compile(r".*_p([0-9]{8})")

#: Partitions with data. Those made ahead have none; the default partition has none as long as all clocks are right.
_FILLED = text("""
    WITH filled AS MATERIALIZED (
        SELECT inhrelid AS part FROM pg_inherits
         WHERE inhparent = to_regclass(:parent) AND pg_relation_size(inhrelid) > 0)
    SELECT (SELECT relname FROM pg_class WHERE oid = part) FROM filled
""")


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From `start` up to but not including `end`, both naive UTC; None means unbounded."""

    start: datetime | None
    end: datetime | None


@dataclass(frozen=True, slots=True)
class FilledDays:
    """The days whose partitions have rows, newest first.

    `others` is true when a partition that belongs to no single day (the default partition) has rows, too.
    """

    days: tuple[datetime, ...]
    others: bool = False

    @classmethod
    async def read(cls, connection: AsyncConnection, parent: str) -> FilledDays:
        """Read the present state. A partition counts from its first row on, even before that row is committed."""
        names = [str(name) for name in (await connection.execute(_FILLED, {"parent": parent})).scalars()]
        days = [day for day in map(_day, names) if day is not None]
        return cls(tuple(sorted(days, reverse=True)), others=len(days) < len(names))

    def ranges(self, since: datetime | None, until: datetime | None) -> Iterator[TimeRange]:
        """The ranges to query, newest first. Each row from `since` up to before `until` is in exactly one of them."""
        days = [day for day in self.days if (until is None or day < until) and (since is None or day + DAY > since)]
        starts: list[datetime | None] = []
        size, rest = 1, days
        while rest:
            starts.append(rest[:size][-1])
            rest, size = rest[size:], size * _GROWTH
        end = until
        if self.others:
            # Their rows may be of any time: before, between and after the days.
            starts.append(since)
        elif days and (until is None or until > days[0] + DAY):
            end = days[0] + DAY
        for day in starts:
            start = since if day is None or (since is not None and day < since) else day
            if start is None or end is None or start < end:
                yield TimeRange(start, end)
                end = start


def _day(partition: str) -> datetime | None:
    """The day of a partition, read from its name (see `ensure_day_partitions` in the migrations)."""
    match = _PARTITION.fullmatch(partition)
    return datetime.combine(date.fromisoformat(match[1]), time.min) if match else None
