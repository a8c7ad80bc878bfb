"""What a lesson prevents: the failure rate of runs without it minus that of runs with it, with an interval."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

#: With fewer verified runs in either arm, the estimate says `too_few`.
ENOUGH = 10
CONFIDENCE = 0.95
#: Before a lesson is put out of use. The data are looked at after every run, so that one look must be surer.
HARM_CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True)
class Counts:
    """Runs to which a lesson applied, by arm, and those that failed."""

    applied: int
    applied_failed: int
    withheld: int
    withheld_failed: int

    @property
    def too_few(self) -> bool:
        return min(self.applied, self.withheld) < ENOUGH


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference of two rates with its bounds."""

    value: float
    low: float
    high: float


def prevented(counts: Counts, confidence: float = CONFIDENCE) -> Interval | None:
    """Failures that the lesson prevents, as a share of the runs to which it applies; None if there are too few runs.

    The interval is Newcombe's for the difference of independent proportions, from two Wilson intervals.
    """
    if counts.too_few:
        return None
    without, with_it = (
        _wilson(counts.withheld_failed, counts.withheld, confidence),
        _wilson(counts.applied_failed, counts.applied, confidence),
    )
    value = without.value - with_it.value
    below = sqrt((without.value - without.low) ** 2 + (with_it.high - with_it.value) ** 2)
    above = sqrt((without.high - without.value) ** 2 + (with_it.value - with_it.low) ** 2)
    return Interval(value, max(-1.0, value - below), min(1.0, value + above))


def harms(counts: Counts) -> bool:
    """Whether runs with the lesson surely fail more often than those without."""
    interval = prevented(counts, HARM_CONFIDENCE)
    return interval is not None and interval.high < 0


def _wilson(failed: int, total: int, confidence: float) -> Interval:
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = failed / total
    center = (rate + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    return Interval(rate, center - half, center + half)
