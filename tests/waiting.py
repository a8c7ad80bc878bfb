"""Waiting for conditions in tests: long enough for a busy machine, and no longer than it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from sandbox.engine.guest import Guest

#: A condition that does not hold by then never will.
WAIT_SECONDS = 120.0

T = TypeVar("T")


def wait_until(condition: Callable[[], T], explanation: Callable[[], object] = str, *, pause: float = 0.05) -> T:
    """Call `condition` every `pause` seconds until its result is true, and return that result.

    Raises:
        AssertionError: It was not true after `WAIT_SECONDS`; the message is `explanation()`.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while not (result := condition()):
        assert time.monotonic() < deadline, explanation()
        time.sleep(pause)
    return result


async def watch_begins(guest: Guest, folder: str, watching: AsyncIterator[dict[str, Any]]) -> None:
    """Begin to read the changes below the folder. From the return on, none is missed and none is left to be read."""
    first = asyncio.ensure_future(anext(watching))
    written = 0
    while not first.done():
        written += 1
        await guest.write_file(f"{folder}/probe-{written}", b"")
        await asyncio.wait({first}, timeout=0.3)
    change = await first
    while change["path"] != f"{folder}/probe-{written}":
        change = await anext(watching)
