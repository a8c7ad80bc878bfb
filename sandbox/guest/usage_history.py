"""The resource usage of the container over the last hour, measured at intervals and kept in memory."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

from .stats import read_stats

INTERVAL_SECONDS = 10.0
#: One hour.
KEPT = 360
_FIELDS = ("cpu_seconds", "memory_bytes", "disk_used_bytes", "network_received_bytes", "network_sent_bytes")


class UsageHistory:
    """The newest `KEPT` measurements, oldest first."""

    def __init__(self, workspace: str) -> None:
        self._workspace = workspace
        self.samples: deque[dict[str, Any]] = deque(maxlen=KEPT)

    async def measure(self) -> None:
        """Measure now and then at every interval, until this is cancelled."""
        while True:
            stats = read_stats(self._workspace)
            self.samples.append({"time": round(time.time(), 3), **{name: stats[name] for name in _FIELDS}})
            await asyncio.sleep(INTERVAL_SECONDS)
