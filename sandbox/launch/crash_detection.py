"""Detects an app that has failed although its process still runs, such as a reloader that waits for a code change."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from sandbox.engine.guest import Guest
from sandbox.engine.guest_data import ProcessInfo

#: An app that has printed an error counts as crashed after this long without output and without using the processor.
IDLE_SECONDS = 15.0
#: Processor time that health probes and the guest agent may use meanwhile, with some margin.
_IDLE_CPU_SECONDS = 0.5

_ERROR_LINE = re.compile(
    r"Traceback \(most recent call last\)|app crashed|^Failed running |^(?:Uncaught )?[\w.]*(?:Error|Exception)\b"
)


class CrashDetector:
    """Watches one app that does not answer yet. Call `has_crashed` repeatedly, with about a second between calls."""

    def __init__(self) -> None:
        self._output_end = -1
        self._cpu_seconds = 0.0
        self._idle_since = 0.0

    async def has_crashed(self, guest: Guest, process: ProcessInfo, tail: Iterable[str]) -> bool:
        """Whether the app has printed an error and then done nothing for `IDLE_SECONDS`.

        `tail` holds the last lines of its output. Raises GuestError if the guest agent does not answer.
        """
        if not any(_ERROR_LINE.search(line) for line in tail):
            return False
        used = (await guest.stats()).cpu_seconds
        if process.output_end != self._output_end or used - self._cpu_seconds > _IDLE_CPU_SECONDS:
            self._output_end, self._cpu_seconds, self._idle_since = process.output_end, used, time.monotonic()
        return time.monotonic() - self._idle_since > IDLE_SECONDS
