"""The ranges of time to query: newest first, without gap or overlap, and no wider than necessary."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sandbox.db.day_partitions import DAY, FilledDays, TimeRange

TODAY = datetime(2026, 5, 20)
_hours = st.integers(-60 * 24, 60 * 24).map(lambda hours: TODAY + timedelta(hours=hours))
_filled = st.builds(
    lambda numbers, others: FilledDays(tuple(sorted((TODAY - n * DAY for n in numbers), reverse=True)), others),
    st.sets(st.integers(-7, 40)),
    st.booleans(),
)


def _within(range_: TimeRange, moment: datetime) -> bool:
    after_start = range_.start is None or range_.start <= moment
    return after_start and (range_.end is None or moment < range_.end)


@given(_filled, st.none() | _hours, st.none() | _hours, _hours)
def test_every_moment_with_rows_is_in_exactly_one_range(filled, since, until, moment):
    ranges = list(filled.ranges(since, until))
    found = [range_ for range_ in ranges if _within(range_, moment)]
    requested = (since is None or since <= moment) and (until is None or moment < until)
    has_rows = filled.others or any(day <= moment < day + DAY for day in filled.days)
    assert len(found) == 1 if requested and has_rows else len(found) <= requested


@given(_filled, st.none() | _hours, st.none() | _hours)
def test_ranges_are_adjacent_and_newest_first(filled, since, until):
    ranges = list(filled.ranges(since, until))
    assert all(newer.start == older.end for newer, older in itertools.pairwise(ranges))
    assert len(ranges) <= 4 + filled.others


def _days(*numbers: int, others: bool = False) -> FilledDays:
    return FilledDays(tuple(TODAY - number * DAY for number in numbers), others)


def test_a_month_is_three_ranges_that_end_with_the_rows():
    ranges = list(_days(*range(30)).ranges(None, None))
    assert ranges == [
        TimeRange(TODAY, TODAY + DAY),
        TimeRange(TODAY - 5 * DAY, TODAY),
        TimeRange(TODAY - 29 * DAY, TODAY - 5 * DAY),
    ]


def test_days_outside_the_requested_time_are_left_out():
    since, until = TODAY - 2 * DAY, TODAY - timedelta(hours=30)
    assert list(_days(*range(30)).ranges(since, until)) == [TimeRange(since, until)]
    assert list(_days(*range(30)).ranges(None, TODAY - 31 * DAY)) == []


def test_rows_of_no_day_are_looked_for_at_both_ends():
    assert list(_days(0, 1, others=True).ranges(None, None)) == [
        TimeRange(TODAY, None),
        TimeRange(TODAY - DAY, TODAY),
        TimeRange(None, TODAY - DAY),
    ]
    assert list(_days(others=True).ranges(None, None)) == [TimeRange(None, None)]


def test_nothing_is_looked_for_where_no_rows_are():
    assert list(_days().ranges(None, None)) == []
