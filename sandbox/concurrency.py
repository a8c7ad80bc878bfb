"""Helpers for asyncio: one action for several roles at once, work that goes on when cancelled, parts of the service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

#: How long one part of the service may take to close. Those that write what is queued give up before that.
CLOSE_SECONDS = 10.0

log = logging.getLogger(__name__)


async def for_each(roles: Iterable[str], act: Callable[[str], Awaitable[T]]) -> dict[str, T]:
    """Call `act(role)` concurrently for all roles; the results by role.

    When one call raises an error, the others are cancelled and that error is raised.
    """
    names = list(roles)

    async def one(role: str) -> T:
        return await act(role)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = {role: group.create_task(one(role)) for role in names}
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return {role: task.result() for role, task in tasks.items()}


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end. If the caller is cancelled meanwhile, CancelledError is raised after that."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # marks the exception as retrieved, otherwise asyncio logs it
        raise


class Part(Protocol):
    """Something that works in the background between `start` and `close`."""

    async def start(self) -> None: ...
    async def close(self) -> None: ...


P = TypeVar("P", bound=Part)


async def started(stack: AsyncExitStack, part: P) -> P:
    """Start a part, and close it when the stack is closed."""
    await part.start()
    close_at_end(stack, part.close)
    return part


def close_at_end(
    stack: AsyncExitStack, close: Callable[[], Awaitable[None]], *, seconds: float = CLOSE_SECONDS
) -> None:
    """Call `close` when the stack is closed. After so many seconds it is cancelled, and the other parts are closed."""

    async def close_in_time() -> None:
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                await close()
        except TimeoutError:
            if not deadline.expired():
                raise
        if deadline.expired():
            log.error("%s did not end within %.0f s and was cancelled", close.__qualname__, seconds)

    stack.push_async_callback(close_in_time)
