"""Do one thing for several roles side by side; the first failure ends the others and is raised as itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

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
