"""Tables partitioned by day: in which stretches of time to look for the newest rows.

A page is looked for in the newest day that has rows, then in the five days before it, the twenty-five before those and
so on until it is full. PostgreSQL plans each stretch by what it knows of its days: where a value is common the first
stretch fills the page; where it is rare, the plan is one that reads the few rows there are. Asked for all days at once
it takes the page to be spread over all of them, and reads on and on in order of time where little matches.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

DAY = timedelta(days=1)
#: Each stretch has so many times the days of the one before: few questions, however old the oldest day is.
_GROWTH = 5
_PARTITION = re.compile(r".*_p([0-9]{8})")

#: Days made ahead have no rows, and the default partition has none as long as all clocks are right.
_FILLED = text("""
    WITH filled AS MATERIALIZED (
        SELECT inhrelid AS part FROM pg_inherits
         WHERE inhparent = to_regclass(:parent) AND pg_relation_size(inhrelid) > 0)
    SELECT (SELECT relname FROM pg_class WHERE oid = part) FROM filled
""")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Times from `first` up to before `beyond`, in UTC without saying so; None is without end."""

    first: datetime | None
    beyond: datetime | None


@dataclass(frozen=True, slots=True)
class FilledDays:
    """Days whose partitions have rows, newest first; `others`: so has a partition that is of no day."""

    days: tuple[datetime, ...]
    others: bool = False

    @classmethod
    async def read(cls, connection: AsyncConnection, parent: str) -> FilledDays:
        """As it is now: a partition counts from its first row on, even before that is committed."""
        names = [str(name) for name in (await connection.execute(_FILLED, {"parent": parent})).scalars()]
        days = [day for day in map(_day, names) if day is not None]
        return cls(tuple(sorted(days, reverse=True)), others=len(days) < len(names))

    def stretches(self, since: datetime | None, until: datetime | None) -> Iterator[Stretch]:
        """Where to look, newest first: each row from `since` up to before `until` is in just one of them."""
        days = [day for day in self.days if (until is None or day < until) and (since is None or day + DAY > since)]
        starts: list[datetime | None] = []
        size, rest = 1, days
        while rest:
            starts.append(rest[:size][-1])
            rest, size = rest[size:], size * _GROWTH
        beyond = until
        if self.others:
            # They may be of any time: before, between and after the days.
            starts.append(since)
        elif days and (until is None or until > days[0] + DAY):
            beyond = days[0] + DAY
        for start in starts:
            first = since if start is None or (since is not None and start < since) else start
            if first is None or beyond is None or first < beyond:
                yield Stretch(first, beyond)
                beyond = first


def _day(partition: str) -> datetime | None:
    """The day that a partition is of, by its name as `ensure_day_partitions` makes it."""
    match = _PARTITION.fullmatch(partition)
    return datetime.combine(date.fromisoformat(match[1]), time.min) if match else None
