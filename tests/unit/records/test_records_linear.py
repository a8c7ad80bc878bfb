"""Reading a report takes time in proportion to its size: twice the input, about twice the steps."""

from __future__ import annotations

from functools import partial

import pytest

from sandbox.records.reports.coverage import read_cobertura
from sandbox.records.reports.junit import read_junit
from sandbox.records.reports.warnings import warnings_in
from sandbox.records.reports.xml import ReportRefused
from tests.steps import LINEAR, steps


def _junit(text: str) -> bytes:
    return f'<testsuite><testcase name="a"><failure message="x">{text}</failure></testcase></testsuite>'.encode()


@pytest.mark.parametrize("piece", [".a", "a.b:", "/x.", "a.b:1 "])
def test_the_place_of_a_failure(piece: str) -> None:
    once, twice = (steps(partial(read_junit, _junit(piece * size))) for size in (3_000, 6_000))
    assert twice < LINEAR * once


@pytest.mark.parametrize("piece", ["warn [", "1 warning ", "[WARNING] a:", "x:1: W"])
def test_warnings(piece: str) -> None:
    once, twice = (steps(partial(warnings_in, (piece * 50 + "\n") * size)) for size in (200, 400))
    assert twice < LINEAR * once


def test_packages_within_packages() -> None:
    def report(size: int) -> bytes:
        line = '<class filename="a.py"><lines><line number="1" hits="1"/></lines></class>'
        return f"<coverage>{'<package>' * 30}{line * size}{'</package>' * 30}</coverage>".encode()

    once, twice = (steps(partial(read_cobertura, report(size))) for size in (20, 40))
    assert twice < LINEAR * once
    deep = f"<coverage>{'<package>' * 5_000}{'</package>' * 5_000}</coverage>".encode()
    with pytest.raises(ReportRefused, match="nested"):
        read_cobertura(deep)
