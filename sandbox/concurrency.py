"""Doing one thing for several roles side by side, and doing a thing to its end although the doer is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def for_each(roles: Iterable[str], act: Callable[[str], Awaitable[T]]) -> dict[str, T]:
    """`act(role)` for all roles at once; the results by role. Cancels the rest when one fails."""
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
    """Await `work` to its end; a cancellation that comes meanwhile is raised after it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain of it
        raise
