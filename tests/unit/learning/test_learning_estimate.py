"""The estimate of what a lesson prevents."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.learning.estimate import ENOUGH, Counts, harms, prevented


def test_too_few_runs_in_either_arm_tell_nothing() -> None:
    assert prevented(Counts(1000, 0, ENOUGH - 1, ENOUGH - 1)) is None
    assert prevented(Counts(ENOUGH - 1, 0, 1000, 1000)) is None
    assert prevented(Counts(ENOUGH, 0, ENOUGH, ENOUGH)) is not None


def test_newcombes_published_example() -> None:
    """56 of 70 against 48 of 80: Newcombe (1998), method 10, gives 0.0524 to 0.3339."""
    found = prevented(Counts(applied=80, applied_failed=48, withheld=70, withheld_failed=56))
    assert found is not None
    assert (round(found.value, 4), round(found.low, 4), round(found.high, 4)) == (0.2, 0.0524, 0.3339)


def test_harm_needs_more_than_a_bad_estimate() -> None:
    assert not harms(Counts(applied=20, applied_failed=8, withheld=20, withheld_failed=6))
    assert harms(Counts(applied=60, applied_failed=55, withheld=30, withheld_failed=3))


@given(st.integers(10, 500), st.integers(10, 500), st.floats(0, 1), st.floats(0, 1))
def test_the_interval_holds_the_estimate_and_stays_within_bounds(
    applied: int, withheld: int, with_it: float, without: float
) -> None:
    counts = Counts(applied, round(applied * with_it), withheld, round(withheld * without))
    found = prevented(counts)
    assert found is not None
    assert -1 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize(("with_it", "without"), [(0.1, 0.6), (0.5, 0.5), (0.7, 0.4)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(with_it: float, without: float) -> None:
    lot = Random(1)
    covered = 0
    for _ in range(600):
        failed = [sum(lot.random() < rate for _ in range(size)) for rate, size in ((with_it, 90), (without, 30))]
        found = prevented(Counts(90, failed[0], 30, failed[1]))
        assert found is not None
        covered += found.low <= without - with_it <= found.high
    assert covered / 600 > 0.92
