"""Has the kernel look more often who should have each processor, while what is idle works on it.

Whoever wakes up takes the processor from an `IdleGroup` at once. But when somebody else goes to sleep the kernel may
let the group go on although another waits, for the group is owed a little, and it looks again with its next tick: up to
four milliseconds later, in somebody's answer. Somebody who wakes up and goes to sleep again makes it look: that is this
program. It is a process of its own because a thread would hold the service's interpreter lock each time.

Started by the service, as a file: it needs nothing but the standard library. It is told on stdin, and ends with that,
so also when the service is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator

#: Seconds between two beats on one processor.
INTERVAL_SECONDS = 0.001
#: With more of them one is free, as a rule.
MOST_PROCESSORS = 4
#: Seconds that it goes on when there is nothing to do: the next is there soon, or not for long.
_LINGER_SECONDS = 0.1
_BEAT, _REST = b"1", b"0"


class Metronome:
    """The service's side of it. Of one event loop."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._started = False
        self._wanted = 0
        self._rest: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Have the process there, once. Where there are processors enough there is none."""
        if self._started or len(os.sched_getaffinity(0)) > MOST_PROCESSORS:
            return
        self._started = True
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", __file__), stdin=PIPE, start_new_session=True
        )
        self._tell(self._wanted > 0)

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """It beats while this lasts. Several may want that at once."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        elif not self._wanted:
            self._tell(True)
        self._wanted += 1
        try:
            yield
        finally:
            self._wanted -= 1
            if not self._wanted:
                self._rest = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._stop_beating)

    async def close(self) -> None:
        """End the process."""
        if self._rest is not None:
            self._rest.cancel()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()

    def _stop_beating(self) -> None:
        self._rest = None
        self._tell(False)

    def _tell(self, beat: bool) -> None:
        process = self._process
        if process is not None and process.stdin is not None and process.returncode is None:
            process.stdin.write(_BEAT if beat else _REST)


def main() -> None:
    """Visit one processor after the other, from being told to beat to being told anything else."""
    processors = sorted(os.sched_getaffinity(0))
    pause = INTERVAL_SECONDS / len(processors)
    while told := os.read(0, 64):
        while told.endswith(_BEAT) and not select.select([0], [], [], pause)[0]:
            processors.append(processors.pop(0))
            os.sched_setaffinity(0, processors[:1])


if __name__ == "__main__":
    main()
