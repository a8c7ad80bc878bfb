"""Reading a report takes time in proportion to its size: twice the input, about twice the steps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest

from sandbox.records.reports.coverage import read_cobertura
from sandbox.records.reports.junit import read_junit
from sandbox.records.reports.warnings import warnings_in
from sandbox.records.reports.xml import ReportRefused

#: For twice the input; an algorithm that is quadratic in it takes four times as many.
LINEAR = 2.6


def steps(call: Callable[[], Any]) -> int:
    """The number of lines of Python that the call runs. Time would depend on what else the machine does."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


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
