"""Exact tests for pairs: the same project in two arms."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb


def sign_test(better: int, worse: int) -> float:
    """The two-sided p-value of the sign test, which for successes is McNemar's exact test; ties are left out."""
    pairs = better + worse
    if pairs == 0:
        return 1.0
    tail = sum(comb(pairs, k) for k in range(min(better, worse) + 1)) / 2**pairs
    return min(1.0, 2 * tail)


def signed_rank_test(differences: Sequence[float]) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test, exact by counting, for at most 60 differences without ties.

    Zero differences are left out.
    """
    ordered = sorted((difference for difference in differences if difference), key=abs)
    if not ordered:
        return 1.0
    ways = [1]
    for rank in range(1, len(ordered) + 1):
        longer = ways + [0] * rank
        for total, count in enumerate(ways):
            longer[total + rank] += count
        ways = longer
    positive = sum(rank for rank, difference in enumerate(ordered, 1) if difference > 0)
    smaller = min(positive, len(ways) - 1 - positive)
    return min(1.0, 2 * sum(ways[: smaller + 1]) / 2 ** len(ordered))
