"""Run one command to its end and hand back all of it."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable

from .children import Child, Children
from .figures import out_of_memory_kills

#: How long to read on after the command ended while something in the background still holds its output open.
LINGER_SECONDS = 0.05
PIECE = 64 * 1024


def shell() -> str:
    """bash where there is one, else sh."""
    return "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"


def to_argv(command: str | list[str]) -> list[str]:
    """A line goes to the shell, a list is run as it is."""
    return [shell(), "-c", command] if isinstance(command, str) else command


class Result:
    """What came of a command."""

    def __init__(self) -> None:
        self.status = 0
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.seconds = 0.0
        self.timed_out = False
        self.truncated = False
        self.out_of_memory = False


class HungUpMeanwhile(Exception):
    """Whoever asked for the command has gone."""


class Run:
    """A command under way: its pipes, its end, its time, and whoever waits for it."""

    def __init__(self, children: Children, client: socket.socket, limit: int) -> None:
        self._children = children
        self._client = client
        self._limit = limit
        self._result = Result()
        self._poller = select.poll()
        self._outputs: dict[int, bytearray] = {}
        self._input: int | None = None
        self._rest = memoryview(b"")

    def run(
        self,
        start: Callable[[list[int]], Child],
        stdin: bytes,
        seconds: float | None,
        leave: Callable[[int], None],
    ) -> Result:
        """`start` starts it on three descriptors; `leave` takes over output that outlives it. HungUpMeanwhile when the
        client went away: the command and what it started is dead then."""
        began = time.monotonic()
        kills = out_of_memory_kills()
        child = self._start(start, stdin)
        try:
            self._follow(child, None if seconds is None else began + seconds)
        except BaseException:
            self._children.kill_tree(child)
            raise
        finally:
            self._close_input()
            for fd in list(self._outputs):
                leave(fd)
            child.close()
        result = self._result
        result.seconds = time.monotonic() - began
        result.status = child.status if child.status is not None else -1
        result.out_of_memory = result.status != 0 and out_of_memory_kills() > kills
        return result

    def _start(self, start: Callable[[list[int]], Child], stdin: bytes) -> Child:
        theirs: list[int] = []
        ours: list[int] = []
        try:
            if stdin:
                read, write = os.pipe()
                theirs.append(read)
                ours.append(write)
                self._rest = memoryview(stdin)
            else:
                theirs.append(os.open(os.devnull, os.O_RDONLY))
            for _ in range(2):
                read, write = os.pipe()
                theirs.append(write)
                ours.append(read)
            child = start(theirs)
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        for fd in ours:
            os.set_blocking(fd, False)
        if stdin:
            self._input = ours[0]
            self._poller.register(self._input, select.POLLOUT)
        self._outputs = {ours[-2]: self._result.stdout, ours[-1]: self._result.stderr}
        for fd in self._outputs:
            self._poller.register(fd, select.POLLIN)
        return child

    def _follow(self, child: Child, deadline: float | None) -> None:
        self._poller.register(child.done_fd, select.POLLIN)
        self._poller.register(self._client, select.POLLRDHUP)
        ended = False
        while not (ended and not self._outputs):
            if deadline is not None and time.monotonic() >= deadline:
                if ended:
                    return
                self._result.timed_out = True
                self._children.kill_tree(child)
                deadline = None
            wait = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000 + 1
            for fd, _ in self._poller.poll(wait):
                if fd == child.done_fd:
                    ended = True
                    self._poller.unregister(fd)
                    self._close_input()
                    deadline = time.monotonic() + LINGER_SECONDS
                elif fd in self._outputs:
                    self._take(fd)
                elif fd == self._input:
                    self._give()
                elif fd == self._client.fileno():
                    raise HungUpMeanwhile

    def _take(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(fd, PIECE)
            if not data:
                self._poller.unregister(fd)
                os.close(fd)
                del self._outputs[fd]
                return
            room = self._limit - len(self._result.stdout) - len(self._result.stderr)
            self._result.truncated = self._result.truncated or len(data) > room
            self._outputs[fd] += data[: max(room, 0)]

    def _give(self) -> None:
        if self._input is None:
            return
        try:
            self._rest = self._rest[os.write(self._input, self._rest[:PIECE]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._rest = memoryview(b"")
        if not self._rest:
            self._close_input()

    def _close_input(self) -> None:
        if self._input is not None:
            self._poller.unregister(self._input)
            os.close(self._input)
            self._input = None
