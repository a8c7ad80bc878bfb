"""Cancellation of a caller during a call of the Docker SDK."""

import asyncio
import threading
import time

import docker
import pytest

from sandbox.engine.docker.calls import DockerCalls


async def test_a_cancellation_is_raised_when_the_call_has_ended() -> None:
    calls = DockerCalls(None)
    began, ended = threading.Event(), threading.Event()

    def slow(client: docker.APIClient) -> None:
        began.set()
        time.sleep(0.3)
        client.version()
        ended.set()

    caller = asyncio.create_task(calls.call(slow))
    await asyncio.to_thread(began.wait, 10)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()
    await calls.aclose()


async def test_a_call_that_has_not_begun_is_cancelled() -> None:
    calls = DockerCalls(None, threads=1)
    go, made = threading.Event(), []
    first = asyncio.create_task(calls.call(lambda _: go.wait(10)))
    second = asyncio.create_task(calls.call(lambda _: made.append("second")))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    go.set()
    await first
    assert made == []
    await calls.aclose()
