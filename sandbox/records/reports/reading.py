"""Reads reports off the event loop: large ones in a separate process, small ones in a thread.

To read a report of some megabytes takes seconds of pure Python and hundreds of megabytes of memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import anyio.to_process
import anyio.to_thread

#: Most bytes of a report that is read in this process.
SMALL: Final = 65_536
#: Most processes that read reports at the same time.
_PROCESSES: Final = 2

ReadT = TypeVar("ReadT")


class ReportReader:
    """Reads reports. Not thread-safe. The processes end with the event loop, and with the service when it is killed."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(_PROCESSES)

    async def read(self, reader: Callable[..., ReadT], *parts: bytes | None) -> ReadT:
        """The result of `reader(*parts)`. `reader` must be a module-level function; its exceptions are raised here."""
        if sum(len(part or b"") for part in parts) <= SMALL:
            return await anyio.to_thread.run_sync(reader, *parts)
        return await anyio.to_process.run_sync(reader, *parts, limiter=self._limiter)
