"""Named processes: each is started once, and its output is stored whether a client is connected or not."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

from .children import Child, Children, outcome
from .command import to_argv
from .errors import Refused
from .launcher import Launcher
from .sockets import writable
from .spool import Spool
from .stats import out_of_memory_kills

#: Finished processes that are remembered; of more, the ones that ended first are forgotten.
FINISHED_LIMIT = 64
#: Most that is read from a pipe at once.
PIECE = 64 * 1024
#: Most that is read after a process has ended before its end is reported. What a process in the background goes on
#: printing is appended later.
FINAL_OUTPUT = 1024 * 1024
#: How far a process may be ahead of the reader of its output, if it is to wait for it.
AHEAD = 8 * 1024 * 1024
#: How long `write` waits for a process that does not read its input.
STDIN_SECONDS = 10.0
#: Different notes that are written to the logs of apps.
NOTES = 100
#: What the names of processes begin with that are apps.
_APP = "app-"


class Process:
    """One named process. If it is `paced`, what it prints is not read while its reader is too far behind, so that it
    waits and nothing is lost."""

    def __init__(self, name: str, command: str | list[str], spool: Spool, *, paced: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self.name = name
        self._command = command if isinstance(command, str) else " ".join(command)
        self.spool = spool
        self._child: Child | None = None
        #: Descriptors of its output, and which stream each is (0 stdout, 1 stderr).
        self._outputs: dict[int, int] = {}
        self._paced = paced
        self._paused = False
        #: Offset up to which the reader has the output.
        self._taken = 0
        self._stdin: int | None = None
        self._stdin_lock = asyncio.Lock()
        self._kills = out_of_memory_kills()
        self._out_of_memory = False
        self._started_at = time.time()
        self._ended_at: float | None = None
        self._ended = asyncio.Event()

    async def start(self, launcher: Launcher, argv: list[str], cwd: str, env: dict[str, str]) -> None:
        """Start it. Raises Refused, and leaves nothing behind then."""
        stdin, self._stdin = os.pipe()
        theirs = [stdin]
        for stream in range(2):
            read, write = os.pipe()
            os.set_blocking(read, False)
            self._outputs[read] = stream
            theirs.append(write)
        os.set_blocking(self._stdin, False)
        try:
            self._child = await launcher.start(argv, cwd=cwd, env=env, files=theirs)
        except BaseException:
            for fd in self._outputs:
                os.close(fd)
            self._outputs.clear()
            self._close_stdin()
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        for fd in self._outputs:
            self._loop.add_reader(fd, self._read, fd)
        self._child.ended.add_done_callback(lambda _: self._exited())

    def _read(self, fd: int) -> int:
        """Move what the pipe holds to the spool; how many bytes that was."""
        try:
            data = os.read(fd, PIECE)
        except BlockingIOError:
            return 0
        if data:
            self.spool.write(self._outputs[fd], data)
            if self._paced and self.spool.end - self._taken > AHEAD:
                self._pause()
        else:
            self._loop.remove_reader(fd)
            os.close(fd)
            del self._outputs[fd]
        return len(data)

    def _pause(self) -> None:
        self._paused = True
        for fd in self._outputs:
            self._loop.remove_reader(fd)

    def taken(self, offset: int) -> None:
        """A reader has the output before this offset."""
        self._taken = max(self._taken, offset)
        if self.spool.end - self._taken <= AHEAD:
            self._resume()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            for fd in self._outputs:
                self._loop.add_reader(fd, self._read, fd)

    def release(self) -> None:
        """Stop waiting for a reader of the output, so that a full pipe does not block background processes."""
        self._paced = False
        self._resume()

    def _exited(self) -> None:
        """Read the rest of its output, then report its end."""
        for fd in list(self._outputs):
            left = FINAL_OUTPUT
            while left > 0 and (count := self._read(fd)):
                left -= count
        self._ended_at = time.time()
        self._out_of_memory = out_of_memory_kills() > self._kills
        if not self._stdin_lock.locked():
            self._close_stdin()
        self.spool.finish()
        self._ended.set()

    @property
    def running(self) -> bool:
        return not self._ended.is_set()

    @property
    def ended_at(self) -> float:
        return self._ended_at or 0.0

    async def wait(self, seconds: float) -> None:
        """Return when it has ended, or after that time."""
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return

    def info(self) -> dict[str, Any]:
        """The fields of `ProcessInfo`."""
        child = self._child
        status = child.status if child and not self.running else None
        code, number = outcome(status) if status is not None else (None, None)
        return {
            "name": self.name,
            "pid": child.pid if child else 0,
            "command": self._command,
            "running": self.running,
            "exit_code": code,
            "signal": number,
            "started_at": self._started_at,
            "ended_at": self._ended_at,
            "output_end": self.spool.end,
            "out_of_memory": self._out_of_memory and code != 0,
        }

    async def signal(self, children: Children, number: int) -> None:
        """Signal its process group; SIGKILL also kills everything that it started."""
        if self._child is None:
            return
        if number == signal.SIGKILL:
            await children.kill_tree(self._child)
        else:
            children.signal_group(self._child, number)

    async def write(self, data: bytes, close: bool) -> None:
        """Write to its input, and close that if `close`. Raises Refused if it has ended, has closed its input, or does
        not read it for STDIN_SECONDS."""
        async with self._stdin_lock:
            try:
                await self._write(memoryview(data))
            finally:
                if close or not self.running:
                    self._close_stdin()

    async def _write(self, unsent: memoryview) -> None:
        while unsent:
            if self._stdin is None:
                raise Refused("agent_refused", f"the input of {self.name} is closed")
            with writable(self._stdin) as ready:
                await asyncio.wait({ready}, timeout=STDIN_SECONDS)
            if not ready.done():
                raise Refused("agent_refused", f"{self.name} does not read its input")
            try:
                unsent = unsent[os.write(self._stdin, unsent[:PIECE]) :]
            except BrokenPipeError:
                self._close_stdin()
                raise Refused("agent_refused", f"{self.name} has closed its input") from None

    def _close_stdin(self) -> None:
        if self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None


class Processes:
    """All named processes."""

    def __init__(self, launcher: Launcher, folder: str) -> None:
        self._launcher = launcher
        self._folder = folder
        self._lock = asyncio.Lock()
        self._by_name: dict[str, Process] = {}
        self._notes: set[str] = set()

    async def start(
        self, name: str, command: str | list[str], cwd: str, env: dict[str, str], restart_finished: bool, paced: bool
    ) -> Process:
        """The process of that name if it runs, else a new one. Without `restart_finished` also one that has ended."""
        async with self._lock:
            present = self._by_name.get(name)
            if present is not None and (present.running or not restart_finished):
                return present
            process = Process(name, command, Spool(self._folder), paced=paced)
            await process.start(self._launcher, to_argv(command), cwd, env)
            self._by_name[name] = process
            self._forget_oldest()
            return process

    def _forget_oldest(self) -> None:
        finished = sorted((p for p in self._by_name.values() if not p.running), key=lambda p: p.ended_at)
        for process in finished[: max(0, len(finished) - FINISHED_LIMIT)]:
            del self._by_name[process.name]

    def forget(self, name: str) -> Process | None:
        """Free the name; returns the process that had it. Its output is deleted once no client reads it any more."""
        process = self._by_name.pop(name, None)
        if process is not None:
            process.release()
        return process

    def get(self, name: str) -> Process:
        """The process of that name. Raises Refused `process_not_found`."""
        process = self.find(name)
        if process is None:
            raise Refused("process_not_found", f"no process is named {name}", 404)
        return process

    def find(self, name: str) -> Process | None:
        return self._by_name.get(name)

    def note(self, sentence: str) -> None:
        """Add a line to the output of the apps that run, unless they have it already."""
        if sentence in self._notes or len(self._notes) >= NOTES:
            return
        for process in self._by_name.values():
            if process.running and process.name.startswith(_APP):
                self._notes.add(sentence)
                process.spool.write(1, f"sandbox: {sentence}\n".encode())

    def list(self) -> list[Process]:
        return list(self._by_name.values())
