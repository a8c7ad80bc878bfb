"""Worker processes: results, errors, limits, and turns of callers."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sandbox.errors import InvalidInput
from sandbox.workers import NICE, InputTooComplex, Workers, WorkersBusy, WorkerTimeout, WorkLimits
from tests.unit.workers import functions_of_workers as functions

LIMITS = WorkLimits(cpu_seconds=20, memory_bytes=256 << 20, deadline_seconds=60)


@pytest.fixture
async def workers() -> Workers:
    return Workers(4, [functions.__name__])


async def test_the_result_comes_from_a_process_of_low_priority(workers: Workers) -> None:
    assert await workers.run("ann", LIMITS, functions.add, 2, 3) == 5
    nice, pid = await workers.run("ann", LIMITS, functions.nice_and_pid)
    assert nice >= NICE
    assert pid != os.getpid()


def test_a_large_result_arrives_whole_in_the_event_loop_of_the_service() -> None:
    async def run() -> bytes:
        return await Workers(1, [functions.__name__]).run("ann", LIMITS, functions.many, 16 << 20)

    assert len(uvloop.run(run())) == 16 << 20


async def test_a_refusal_keeps_its_class_code_and_hint(workers: Workers) -> None:
    with pytest.raises(InvalidInput) as refused:
        await workers.run("ann", LIMITS, functions.refuse)
    assert (refused.value.code, refused.value.message, refused.value.hint) == ("of_this_test", "no", "never")


async def test_an_error_of_the_system_stays_one(workers: Workers) -> None:
    with pytest.raises(OSError, match="No space left") as full:
        await workers.run("ann", LIMITS, functions.fill_disk)
    assert full.value.errno == errno.ENOSPC


async def test_a_mistake_is_logged_with_its_trace(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RuntimeError, match="fail"):
        await workers.run("ann", LIMITS, functions.fail)
    assert "ZeroDivisionError: a mistake" in caplog.text


@pytest.mark.parametrize(
    ("function", "limits"),
    [
        (functions.spin, WorkLimits(cpu_seconds=1, memory_bytes=256 << 20, deadline_seconds=120)),
        (functions.grow, LIMITS),
        (functions.recurse, LIMITS),
    ],
)
async def test_an_input_that_takes_too_much_is_refused(
    workers: Workers, function: Callable[[], Any], limits: WorkLimits
) -> None:
    with pytest.raises(InputTooComplex):
        await workers.run("ann", limits, function)


async def test_a_late_or_cancelled_call_is_killed(workers: Workers, tmp_path: Path) -> None:
    short = WorkLimits(cpu_seconds=20, memory_bytes=256 << 20, deadline_seconds=0.5)
    with pytest.raises(WorkerTimeout):
        await workers.run("ann", short, functions.sleep, str(tmp_path / "late"))
    call = asyncio.create_task(workers.run("ann", LIMITS, functions.sleep, str(tmp_path / "cancelled")))
    async with asyncio.timeout(60):
        while not (pid := _written(tmp_path / "cancelled")):
            await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def _written(path: Path) -> int:
    return int(path.read_text() or 0) if path.exists() else 0


async def test_calls_of_one_caller_take_turns_and_those_of_others_do_not_wait(workers: Workers, tmp_path: Path) -> None:
    slow = asyncio.create_task(workers.run("slow", LIMITS, functions.sleep, str(tmp_path / "slow")))
    behind = asyncio.create_task(workers.run("slow", LIMITS, functions.add, 1, 1))
    alone = [workers.run("ann", LIMITS, functions.mark, str(tmp_path / "mark")) for _ in range(4)]
    assert await asyncio.gather(*alone) == [True] * 4
    assert not behind.done()
    slow.cancel()
    assert await behind == 2
    with pytest.raises(asyncio.CancelledError):
        await slow


async def test_more_waiting_calls_of_one_caller_are_refused(workers: Workers, tmp_path: Path) -> None:
    calls = [
        asyncio.create_task(workers.run("ann", LIMITS, functions.sleep, str(tmp_path / str(number))))
        for number in range(17)
    ]
    await asyncio.sleep(0)
    with pytest.raises(WorkersBusy):
        await workers.run("ann", LIMITS, functions.add, 1, 1)
    assert await workers.run("bob", LIMITS, functions.add, 1, 1) == 2
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
