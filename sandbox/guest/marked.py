"""Finding what a command has started by a variable of its environment, which all of its descendants inherit.

A daemon has left its session and its parent has ended, so nothing else tells whose it is. Only the user's own processes
may read another one's environment, so this runs in a process of the user.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

#: Set for every command, to a value of its own.
VARIABLE = "SANDBOX_COMMAND"
_LIMIT_SECONDS = 5.0
_PAUSE_SECONDS = 0.005


def new_mark() -> str:
    return os.urandom(8).hex()


def kill_marked(mark: str) -> None:
    """Kill the processes with this mark, until there are none or five seconds are over.

    All are stopped before the first is killed, so that none of them can start another one meanwhile. A program that
    clears its environment is not found.
    """
    deadline = time.monotonic() + _LIMIT_SECONDS
    while time.monotonic() < deadline:
        stopped: set[int] = set()
        while (found := _find(mark) - stopped) and time.monotonic() < deadline:
            _signal(found, signal.SIGSTOP)
            stopped |= found
        if not stopped:
            return
        _signal(stopped, signal.SIGKILL)
        time.sleep(_PAUSE_SECONDS)


def _find(mark: str) -> set[int]:
    entry = f"{VARIABLE}={mark}".encode()
    found = set()
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        # Of a process that has ended or is another user's, nothing can be read.
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
            if entry in file.read().split(b"\0"):
                found.add(int(name))
    return found


def _signal(pids: set[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
