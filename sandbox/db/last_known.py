"""Values read from the database lately, for the time in which it does not answer.

Commands and terminals of running sandboxes need the database only to find out who calls and whose the session is. Both
change seldom, so a service that has read them lately goes on without asking (docs/adr/042).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from cachetools import TTLCache

from sandbox.errors import DatabaseUnavailable

K = TypeVar("K")
V = TypeVar("V")

#: Seconds after which a value that is known is used although the database has not answered yet.
PATIENCE_SECONDS = 1.0
#: Seconds after a failure in which the database is not asked about what is known.
RETRY_SECONDS = 1.0
#: The longest time for which a value is used without the database.
KEEP_SECONDS = 900.0


@dataclass(slots=True)
class _Known(Generic[V]):
    value: V
    read_at: float


class LastKnown(Generic[K, V]):
    """The value of each key as it was last read. Used from one event loop."""

    def __init__(self, size: int, *, age_seconds: float | None = None, weigh: Callable[[V], int] = lambda _: 1) -> None:
        """At most `size` values are kept, or values of this total weight; a heavier one must not exist.

        `age_seconds`: a value counts only if it was read at most so long before the database last answered. None if its
        age does not matter.
        """
        self._known: TTLCache[K, _Known[V]] = TTLCache(size, KEEP_SECONDS, getsizeof=lambda known: weigh(known.value))
        self._age = age_seconds
        self._answered_at = 0.0
        self._failed_at = 0.0
        #: The first of the reads that have taken longer than `PATIENCE_SECONDS` and have not ended.
        self._late: asyncio.Task[V | None] | None = None

    async def read(self, key: K, read: Callable[[], Awaitable[V | None]]) -> V | None:
        """The value that `read` finds; None if there is none. The last known value if the database does not answer.

        Raises DatabaseUnavailable if it does not answer and the value is not known.
        """
        known = self._usable(key)
        if known is None:
            return await self._fresh(key, read)
        if self._is_away():
            return known.value
        task = asyncio.ensure_future(self._fresh(key, read))
        # Not cancelled after this time: a connection whose server is frozen cannot be cancelled either.
        await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
        if not task.done():
            self._late = task
            task.add_done_callback(_retrieve)
            return known.value
        try:
            return task.result()
        except DatabaseUnavailable:
            return known.value

    def put(self, key: K, value: V) -> None:
        """Note a value that was read from the database just now."""
        self._answered_at = time.monotonic()
        self._known[key] = _Known(value, self._answered_at)

    def forget(self, key: K) -> None:
        self._known.pop(key, None)

    def values(self) -> dict[K, V]:
        return {key: known.value for key, known in self._known.items()}

    def confirm(self, values: Mapping[K, V | None]) -> None:
        """Note what the database has now for keys that are known. One without a value is forgotten, and one that was
        forgotten meanwhile stays so."""
        self._answered_at = time.monotonic()
        for key, value in values.items():
            if value is None:
                self.forget(key)
            elif (known := self._known.get(key)) is not None:
                # In place: the time for which it is kept counts from its last use.
                known.value, known.read_at = value, self._answered_at

    async def _fresh(self, key: K, read: Callable[[], Awaitable[V | None]]) -> V | None:
        try:
            value = await read()
        except DatabaseUnavailable:
            self._failed_at = time.monotonic()
            raise
        self._answered_at = time.monotonic()
        if value is None:
            self.forget(key)
        else:
            self.put(key, value)
        return value

    def _usable(self, key: K) -> _Known[V] | None:
        known = self._known.get(key)
        if known is None or (self._age is not None and known.read_at < self._answered_at - self._age):
            return None
        return known

    def _is_away(self) -> bool:
        """Whether the database has failed just now, or has let a read wait for long and has not answered it yet."""
        late = self._late is not None and not self._late.done()
        return late or (self._failed_at > 0 and time.monotonic() - self._failed_at < RETRY_SECONDS)


def _retrieve(task: asyncio.Task[V | None]) -> None:
    """Take the exception of a read for which no caller waits any more."""
    if not task.cancelled():
        task.exception()
