"""Runs one command to its end and returns all of its output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable

from .children import Child, Children
from .errors import HungUp
from .http1 import Connection
from .stats import out_of_memory_kills

#: How long to read on after the command has ended while a process in the background still holds its output open.
LINGER_SECONDS = 0.05
PIECE = 64 * 1024


def shell() -> str:
    """bash where it is installed, else sh."""
    return "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"


def to_argv(command: str | list[str]) -> list[str]:
    """A line is run by the shell, a list as it is."""
    return [shell(), "-c", command] if isinstance(command, str) else command


class Result:
    """What came of a command. `status` is its wait status, `seconds` how long it ran."""

    def __init__(self) -> None:
        self.status = 0
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.seconds = 0.0
        self.timed_out = False
        self.truncated = False
        self.out_of_memory = False


class Command:
    """A command that runs, with its pipes. At most `limit` bytes of output are kept; the rest is read and dropped."""

    def __init__(self, children: Children, limit: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._children = children
        self._limit = limit
        self._result = Result()
        self._outputs: dict[int, bytearray] = {}
        self._outputs_closed: asyncio.Future[None] = self._loop.create_future()
        self._input: int | None = None
        self._unsent = memoryview(b"")

    async def run(
        self,
        start: Callable[[list[int]], Awaitable[Child]],
        stdin: bytes,
        seconds: float | None,
        client: Connection,
    ) -> Result:
        """Run the command that `start` starts on three descriptors; after `seconds` it is killed.

        Raises HungUp when the client closes the connection. The command and what it started is killed then.
        """
        began = time.monotonic()
        kills = out_of_memory_kills()
        child = await self._start(start, stdin)
        try:
            await self._wait(child, seconds, client)
        except BaseException:
            await self._children.kill_tree(child)
            raise
        finally:
            self._close_input()
            for fd in list(self._outputs):
                _discard_output(fd)
        result = self._result
        result.seconds = time.monotonic() - began
        result.status = child.status if child.status is not None else -1
        result.out_of_memory = result.status != 0 and out_of_memory_kills() > kills
        return result

    async def _start(self, start: Callable[[list[int]], Awaitable[Child]], stdin: bytes) -> Child:
        theirs: list[int] = []
        ours: list[int] = []
        try:
            if stdin:
                read, write = os.pipe()
                theirs.append(read)
                ours.append(write)
            else:
                theirs.append(os.open(os.devnull, os.O_RDONLY))
            for _ in range(2):
                read, write = os.pipe()
                theirs.append(write)
                ours.append(read)
            child = await start(theirs)
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
            self._unsent = memoryview(stdin)
            self._loop.add_writer(self._input, self._write_input)
        self._outputs = {ours[-2]: self._result.stdout, ours[-1]: self._result.stderr}
        for fd in self._outputs:
            self._loop.add_reader(fd, self._read_output, fd)
        return child

    async def _wait(self, child: Child, seconds: float | None, client: Connection) -> None:
        with client.hung_up() as hung_up:
            await asyncio.wait({child.ended, hung_up}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not child.ended.done() and not hung_up.done():
                self._result.timed_out = True
                await self._children.kill_tree(child)
                await asyncio.wait({child.ended, hung_up}, return_when=asyncio.FIRST_COMPLETED)
            if not child.ended.done():
                raise HungUp
        self._close_input()
        if self._outputs:
            await asyncio.wait({self._outputs_closed}, timeout=LINGER_SECONDS)

    def _read_output(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(fd, PIECE)
            if not data:
                self._loop.remove_reader(fd)
                os.close(fd)
                del self._outputs[fd]
                if not self._outputs:
                    self._outputs_closed.set_result(None)
                return
            room = self._limit - len(self._result.stdout) - len(self._result.stderr)
            self._result.truncated = self._result.truncated or len(data) > room
            self._outputs[fd] += data[: max(room, 0)]

    def _write_input(self) -> None:
        if self._input is None:
            return
        try:
            self._unsent = self._unsent[os.write(self._input, self._unsent[:PIECE]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # the command does not read its input
            self._unsent = memoryview(b"")
        if not self._unsent:
            self._close_input()

    def _close_input(self) -> None:
        if self._input is not None:
            self._loop.remove_writer(self._input)
            os.close(self._input)
            self._input = None


def _discard_output(fd: int) -> None:
    """Read the pipe to its end and drop the data: processes in the background that write to it must neither block nor
    be killed by SIGPIPE."""
    loop = asyncio.get_running_loop()

    def discard() -> None:
        with contextlib.suppress(BlockingIOError):
            if not os.read(fd, PIECE):
                loop.remove_reader(fd)
                os.close(fd)

    loop.add_reader(fd, discard)
