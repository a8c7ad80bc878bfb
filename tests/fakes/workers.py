"""Workers that call functions at once, in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sandbox.workers import WorkLimits

T = TypeVar("T")


class InlineWorkers:
    """As `Workers`, without limits and processes."""

    async def run(self, caller: str, limits: WorkLimits, function: Callable[..., T], *args: Any) -> T:
        return function(*args)
