"""Counts what a function does, for tests of how its effort grows. Time would depend on what else the machine does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

#: For twice the input; an algorithm that is quadratic in it takes four times as many steps.
LINEAR = 3.0


def steps(call: Callable[[], Any]) -> int:
    """The number of lines of Python that the call runs."""
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
