"""The main thread's loop: it waits for descriptors and for calls from other threads, and blocks on nothing else."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections import deque
from collections.abc import Callable

DRAIN_PIECE = 64 * 1024


class Hub:
    """The main thread's loop."""

    def __init__(self) -> None:
        self._poller = select.poll()
        self._ready: dict[int, Callable[[], object]] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        self._poller.register(self._wake_read, select.POLLIN)
        self._running = True

    def watch(self, fd: int, ready: Callable[[], object]) -> None:
        """Call `ready` whenever there is something to read. On the loop's thread only, like `forget`."""
        self._ready[fd] = ready
        self._poller.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        if self._ready.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def call(self, function: Callable[[], None]) -> None:
        """Call it on the loop's thread, soon. From any thread."""
        self._calls.append(function)
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def drain(self, fd: int) -> None:
        """Read a pipe to its end and throw it away, so that what still writes to it is neither stopped nor killed."""
        os.set_blocking(fd, False)
        self.call(lambda: self.watch(fd, lambda: self._discard(fd)))

    def _discard(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            if not os.read(fd, DRAIN_PIECE):
                self.forget(fd)
                os.close(fd)

    def stop(self) -> None:
        self._running = False

    def run(self, on_child: Callable[[], None]) -> None:
        """Loop until `stop`. `on_child` is called when children may have ended."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self.stop())
        signal.signal(signal.SIGINT, lambda *_: self.stop())
        on_child()
        while self._running:
            for fd, _ in self._poller.poll():
                if fd == self._wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(fd, 4096)
                    while self._calls:
                        self._calls.popleft()()
                    on_child()
                elif ready := self._ready.get(fd):
                    ready()
