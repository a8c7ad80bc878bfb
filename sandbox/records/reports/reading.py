"""Reports to rows, off the event loop: in a process of their own, unless they are small.

A report of some megabytes is seconds of pure Python and hundreds of megabytes of elements; see `otlp/worker`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import anyio.to_process
import anyio.to_thread

#: Bytes of a report that is read in this process.
SMALL: Final = 65_536
#: Reports that are read at once.
_PROCESSES: Final = 2

ReadT = TypeVar("ReadT")


class ReportReader:
    """Reads reports. Of an event loop; the processes end with it, and with the service however that ends."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(_PROCESSES)

    async def read(self, reader: Callable[..., ReadT], *parts: bytes | None) -> ReadT:
        """What `reader`, a function of a module, makes of a report's parts. Raises what it raises."""
        if sum(len(part or b"") for part in parts) <= SMALL:
            return await anyio.to_thread.run_sync(reader, *parts)
        return await anyio.to_process.run_sync(reader, *parts, limiter=self._limiter)
