"""Named processes: started once, their output kept, whoever is connected or not."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from functools import partial
from typing import Any

from .children import Child, Children, outcome
from .figures import out_of_memory_kills
from .hub import Hub
from .launcher import Launcher
from .run import to_argv
from .spool import Spool
from .wire import Refused

#: Finished processes kept under their names; beyond that the one that ended first is forgotten.
KEPT = 64
#: Read from a pipe in one go, and at most so much after the process has ended (what something in the background goes on
#: printing is appended later).
PIECE = 64 * 1024
LAST_WORDS = 1024 * 1024
#: A process that does not read its input makes `write_stdin` wait this long before it is refused.
STDIN_SECONDS = 10.0


class Process:
    """One named process. Its output is read on the loop's thread."""

    def __init__(self, loop: Hub, name: str, command: str | list[str], spool: Spool) -> None:
        self._loop = loop
        self.name = name
        self._command = command if isinstance(command, str) else " ".join(command)
        self.spool = spool
        self._child: Child | None = None
        self._outputs: dict[int, int] = {}
        self._stdin: int | None = None
        self._stdin_lock = threading.Lock()
        self._kills = out_of_memory_kills()
        self._out_of_memory = False
        self._started_at = time.time()
        self._ended_at: float | None = None
        self._ended = threading.Event()

    def start(self, launcher: Launcher, argv: list[str], cwd: str, env: dict[str, str]) -> None:
        """Start it. Raises Refused, and nothing is left then."""
        stdin, self._stdin = os.pipe()
        theirs = [stdin]
        for stream in range(2):
            read, write = os.pipe()
            os.set_blocking(read, False)
            self._outputs[read] = stream
            theirs.append(write)
        os.set_blocking(self._stdin, False)
        try:
            self._child = launcher.start(argv, cwd=cwd, env=env, files=theirs, on_exit=self._exited)
        except Refused:
            for fd in self._outputs:
                os.close(fd)
            self._outputs.clear()
            self._close_stdin()
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        self._child.close()
        self._loop.call(self._watch)

    def _watch(self) -> None:
        for fd in self._outputs:
            self._loop.watch(fd, partial(self._read, fd))

    def _read(self, fd: int) -> int:
        """Move what is there into the log; how much that was."""
        try:
            data = os.read(fd, PIECE)
        except BlockingIOError:
            return 0
        if data:
            self.spool.write(self._outputs[fd], data)
        else:
            self._loop.forget(fd)
            os.close(fd)
            del self._outputs[fd]
        return len(data)

    def _exited(self) -> None:
        """On the loop's thread: its last words, then its end."""
        for fd in list(self._outputs):
            left = LAST_WORDS
            while left > 0 and (count := self._read(fd)):
                left -= count
        self._ended_at = time.time()
        self._out_of_memory = out_of_memory_kills() > self._kills
        self._close_stdin()
        self.spool.finish()
        self._ended.set()

    @property
    def running(self) -> bool:
        return not self._ended.is_set()

    @property
    def ended_at(self) -> float:
        return self._ended_at or 0.0

    def wait(self, seconds: float) -> None:
        """Return when it has ended, or after that time."""
        self._ended.wait(seconds)

    def info(self) -> dict[str, Any]:
        """The fields of `ProcessInfo`."""
        child = self._child
        code, number = (
            outcome(child.status) if child and child.status is not None and not self.running else (None, None)
        )
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

    def signal(self, children: Children, number: int) -> None:
        """Signal its group; SIGKILL goes to everything it started."""
        if self._child is None:
            return
        if number == signal.SIGKILL:
            children.kill_tree(self._child)
        else:
            children.signal_group(self._child, number)

    def write(self, data: bytes, close: bool) -> None:
        """Write to its input. Refused if it has ended, closed its input, or reads none of it for a while."""
        rest = memoryview(data)
        with self._stdin_lock:
            while rest:
                if self._stdin is None:
                    raise Refused("agent_refused", f"the input of {self.name} is closed")
                poller = select.poll()
                poller.register(self._stdin, select.POLLOUT)
                if not poller.poll(STDIN_SECONDS * 1000):
                    raise Refused("agent_refused", f"{self.name} does not read its input")
                try:
                    rest = rest[os.write(self._stdin, rest[:PIECE]) :]
                except BrokenPipeError:
                    self._close_stdin_locked()
                    raise Refused("agent_refused", f"{self.name} has closed its input") from None
            if close:
                self._close_stdin_locked()

    def _close_stdin(self) -> None:
        # Whoever is writing finds the pipe broken, and lets go of the lock, once the last reader is gone.
        if self._stdin_lock.acquire(blocking=False):
            try:
                self._close_stdin_locked()
            finally:
                self._stdin_lock.release()

    def _close_stdin_locked(self) -> None:
        if self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None


class Processes:
    """All named processes."""

    def __init__(self, loop: Hub, launcher: Launcher, folder: str) -> None:
        self._loop = loop
        self._launcher = launcher
        self._folder = folder
        self._lock = threading.Lock()
        self._named: dict[str, Process] = {}

    def start(
        self, name: str, command: str | list[str], cwd: str, env: dict[str, str], restart_finished: bool
    ) -> Process:
        """The process of that name if it runs (or, without `restart_finished`, ever ran); else a new one."""
        with self._lock:
            present = self._named.get(name)
            if present is not None and (present.running or not restart_finished):
                return present
            process = Process(self._loop, name, command, Spool(self._folder))
            process.start(self._launcher, to_argv(command), cwd, env)
            self._named[name] = process
            self._forget_oldest()
            return process

    def _forget_oldest(self) -> None:
        finished = sorted((p for p in self._named.values() if not p.running), key=lambda p: p.ended_at)
        for process in finished[: max(0, len(finished) - KEPT)]:
            del self._named[process.name]

    def forget(self, name: str) -> Process | None:
        """Its name is free and its output gone once nobody reads it; what it was."""
        with self._lock:
            return self._named.pop(name, None)

    def get(self, name: str) -> Process:
        """The process; Refused `process_not_found` if there never was one."""
        process = self.find(name)
        if process is None:
            raise Refused("process_not_found", f"no process is named {name}", 404)
        return process

    def find(self, name: str) -> Process | None:
        with self._lock:
            return self._named.get(name)

    def list(self) -> list[Process]:
        with self._lock:
            return list(self._named.values())
