"""The sandbox's own processes, read from /proc: what `sandbox ps` shows and `sandbox signal` may signal.

The guest agent, its helpers and the container's init are left out: they are not the sandbox's to end.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import NamedTuple

#: Most processes of one answer, and characters of one command.
PROCESS_LIMIT = 4096
COMMAND_LIMIT = 500
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Running(NamedTuple):
    """A process, with the fields of `RunningProcess`."""

    pid: int
    ppid: int
    command: str
    cpu_seconds: float
    memory_bytes: int
    started_at: float


def running_processes(uid: int, without: Collection[int], proc: str = "/proc") -> list[Running]:
    """Return the processes of the user, oldest first, without zombies and without the given ones."""
    booted = _boot_time(proc)
    pids = (int(name) for name in os.listdir(proc) if name.isdecimal())
    found = (_read(proc, pid, uid, booted) for pid in pids if pid not in without)
    return sorted(filter(None, found), key=lambda one: (one.started_at, one.pid))[:PROCESS_LIMIT]


def belongs_to(uid: int, pid: int, proc: str = "/proc") -> bool:
    """Whether this is a process of the user."""
    return _read(proc, pid, uid, 0.0) is not None


def _read(proc: str, pid: int, uid: int, booted: float) -> Running | None:
    """The process; None if it has ended or is another user's."""
    try:
        owner = _content(f"{proc}/{pid}/status").partition(b"\nUid:")[2].split(maxsplit=1)[0]
        name, _, rest = _content(f"{proc}/{pid}/stat").partition(b"(")[2].rpartition(b")")
        words = _content(f"{proc}/{pid}/cmdline")
    except (OSError, IndexError):
        return None
    fields = rest.split()
    if int(owner) != uid or fields[0] in (b"Z", b"X"):
        return None
    command = words.rstrip(b"\0").replace(b"\0", b" ") or b"[%s]" % name
    return Running(
        pid,
        int(fields[1]),
        command.decode("utf-8", "replace")[:COMMAND_LIMIT],
        (int(fields[11]) + int(fields[12])) / _TICKS,
        int(fields[21]) * _PAGE,
        booted + int(fields[19]) / _TICKS,
    )


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(65_536)


def _boot_time(proc: str) -> float:
    with open(f"{proc}/stat", "rb") as file:
        for line in file:
            if line.startswith(b"btime "):
                return float(line.split()[1])
    return 0.0
