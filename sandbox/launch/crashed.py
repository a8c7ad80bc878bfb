"""Notices an app that has failed and does not end: a reloader or watcher that waits for the code to be corrected."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from sandbox.engine.base import Guest, ProcessInfo

#: How long nothing is printed and computed until nobody need wait for its health check to time out.
IDLE_SECONDS = 15.0
#: What the probes and the guest agent themselves use in that time, and some more.
_IDLE_CPU_SECONDS = 0.5

_SAYS_SO = re.compile(
    r"Traceback \(most recent call last\)|app crashed|^Failed running |^(?:Uncaught )?[\w.]*(?:Error|Exception)\b"
)


class CrashWatch:
    """Of one app that does not answer yet. Ask it again and again."""

    def __init__(self) -> None:
        self._output_end = -1
        self._cpu_seconds = 0.0
        self._since = 0.0

    async def has_crashed(self, guest: Guest, process: ProcessInfo, tail: Iterable[str]) -> bool:
        """Whether it has printed an error and done nothing for `IDLE_SECONDS`."""
        if not any(_SAYS_SO.search(line) for line in tail):
            return False
        used = (await guest.stats()).cpu_seconds
        if process.output_end != self._output_end or used - self._cpu_seconds > _IDLE_CPU_SECONDS:
            self._output_end, self._cpu_seconds, self._since = process.output_end, used, time.monotonic()
        return time.monotonic() - self._since > IDLE_SECONDS
