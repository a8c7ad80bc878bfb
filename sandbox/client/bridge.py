"""Runs the asynchronous SDK for callers without an event loop, in one background thread per process."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import ExitStack
from typing import Any, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

T = TypeVar("T")

_lock = threading.Lock()
_stack = ExitStack()
_portal: BlockingPortal | None = None
_owner_pid = 0


def _get_portal() -> BlockingPortal:
    global _portal, _owner_pid, _stack  # noqa: PLW0603 - there is one loop per process
    with _lock:
        if _portal is None or _owner_pid != os.getpid():  # A forked child inherits the variables but not the thread.
            _stack = ExitStack()
            _portal = _stack.enter_context(start_blocking_portal("asyncio", name="sandbox-client"))
            _owner_pid = os.getpid()
            atexit.register(_stop, _owner_pid)
        return _portal


def _stop(pid: int) -> None:
    global _portal  # noqa: PLW0603
    with _lock:
        if _portal is not None and pid == os.getpid():
            _portal = None
            _stack.close()


def run(call: Callable[[], Awaitable[T]]) -> T:
    """Run the coroutine that `call` returns, and return its result. Ctrl-C in this thread cancels the coroutine."""

    async def task() -> T:
        return await call()

    future = _get_portal().start_task_soon(task)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def iterate(start: Callable[[], AsyncGenerator[T]]) -> Generator[T]:
    """Yield the items of the asynchronous generator that `start` returns. Closing this generator closes that one."""
    send, receive = anyio.create_memory_object_stream[T](256)

    async def pump() -> None:
        async with send:
            items = start()
            try:
                async for item in items:
                    await send.send(item)
            finally:
                with anyio.CancelScope(shield=True):
                    await items.aclose()

    future: Any = _get_portal().start_task_soon(pump)
    try:
        while True:
            try:
                item = run(receive.receive)
            except anyio.EndOfStream:
                break
            yield item
        future.result()
    finally:
        future.cancel()
        run(receive.aclose)
