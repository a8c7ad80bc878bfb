"""Stretches of days: newest first, without gap or overlap, and no wider than they have to be."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sandbox.db.days import DAY, FilledDays, Stretch

TODAY = datetime(2026, 5, 20)
_hours = st.integers(-60 * 24, 60 * 24).map(lambda hours: TODAY + timedelta(hours=hours))
_filled = st.builds(
    lambda numbers, others: FilledDays(tuple(sorted((TODAY - n * DAY for n in numbers), reverse=True)), others),
    st.sets(st.integers(-7, 40)),
    st.booleans(),
)


def _within(stretch: Stretch, moment: datetime) -> bool:
    after_first = stretch.first is None or stretch.first <= moment
    return after_first and (stretch.beyond is None or moment < stretch.beyond)


@given(_filled, st.none() | _hours, st.none() | _hours, _hours)
def test_every_moment_with_rows_is_in_just_one_stretch(filled, since, until, moment):
    stretches = list(filled.stretches(since, until))
    found = [stretch for stretch in stretches if _within(stretch, moment)]
    asked = (since is None or since <= moment) and (until is None or moment < until)
    has_rows = filled.others or any(day <= moment < day + DAY for day in filled.days)
    assert len(found) == 1 if asked and has_rows else len(found) <= asked


@given(_filled, st.none() | _hours, st.none() | _hours)
def test_stretches_follow_on_one_another_from_the_newest(filled, since, until):
    stretches = list(filled.stretches(since, until))
    assert all(newer.first == older.beyond for newer, older in itertools.pairwise(stretches))
    assert len(stretches) <= 4 + filled.others


def _days(*numbers: int, others: bool = False) -> FilledDays:
    return FilledDays(tuple(TODAY - number * DAY for number in numbers), others)


def test_a_month_is_three_stretches_that_end_where_the_rows_do():
    stretches = list(_days(*range(30)).stretches(None, None))
    assert stretches == [
        Stretch(TODAY, TODAY + DAY),
        Stretch(TODAY - 5 * DAY, TODAY),
        Stretch(TODAY - 29 * DAY, TODAY - 5 * DAY),
    ]


def test_days_outside_of_what_is_asked_do_not_count():
    since, until = TODAY - 2 * DAY, TODAY - timedelta(hours=30)
    assert list(_days(*range(30)).stretches(since, until)) == [Stretch(since, until)]
    assert list(_days(*range(30)).stretches(None, TODAY - 31 * DAY)) == []


def test_rows_of_no_day_are_looked_for_at_both_ends():
    assert list(_days(0, 1, others=True).stretches(None, None)) == [
        Stretch(TODAY, None),
        Stretch(TODAY - DAY, TODAY),
        Stretch(None, TODAY - DAY),
    ]
    assert list(_days(others=True).stretches(None, None)) == [Stretch(None, None)]


def test_nothing_is_looked_for_where_no_rows_are():
    assert list(_days().stretches(None, None)) == []
