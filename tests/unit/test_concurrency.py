"""The parts of the service are closed in time, whatever one of them does."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from sandbox.concurrency import close_at_end


async def test_a_part_that_does_not_close_is_cancelled_and_the_others_are_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    closed = []

    async def close_first() -> None:
        closed.append("first")

    async def close_second() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.append("second, cancelled")

    async with asyncio.timeout(60):
        async with AsyncExitStack() as stack:
            close_at_end(stack, close_first)
            close_at_end(stack, close_second, seconds=0.01)
    assert closed == ["second, cancelled", "first"]
    (record,) = caplog.records
    assert "close_second did not end" in record.getMessage()


async def test_a_timeout_of_a_part_itself_is_raised() -> None:
    async def close() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        async with AsyncExitStack() as stack:
            close_at_end(stack, close)
