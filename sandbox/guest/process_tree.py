"""Finding and killing process trees through /proc."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable

_LIMIT_SECONDS = 10.0
_PAUSE_SECONDS = 0.005


async def freeze_and_kill(find: Callable[[], set[int]]) -> int:
    """Kill all processes that `find` returns, until it finds none or ten seconds are over; how many were killed.

    All are stopped before the first is killed, so that none of them can start another one meanwhile.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + _LIMIT_SECONDS
    while time.monotonic() < deadline:
        stopped: set[int] = set()
        # Not interrupted by other tasks, because processes that fork all the time must not get ahead.
        while (found := find() - stopped) and time.monotonic() < deadline:
            _signal(found, signal.SIGSTOP)
            stopped |= found
        if not stopped:
            break
        _signal(stopped, signal.SIGKILL)
        killed |= stopped
        await asyncio.sleep(_PAUSE_SECONDS)
    return len(killed)


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def find_tree(roots: set[int]) -> set[int]:
    """The processes of the roots' sessions and groups and all their descendants, without zombies."""
    processes = []
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                state, parent, group, session = file.read().rpartition(b")")[2].split()[:4]
        except OSError:
            continue
        if state not in b"ZX":
            processes.append((int(entry), int(parent), int(group), int(session)))
    found = {pid for pid, _, group, session in processes if {pid, group, session} & roots}
    while more := {pid for pid, parent, _, _ in processes if pid not in found and parent in found | roots}:
        found |= more
    return found
