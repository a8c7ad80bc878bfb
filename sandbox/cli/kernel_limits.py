"""Limits of the kernel that many sandboxes on one machine can reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SYSCTL = Path("/proc/sys")


@dataclass(frozen=True, slots=True)
class KernelLimit:
    """A setting of the kernel that is lower than what `sandboxes` sandboxes need."""

    name: str
    value: int
    needed: int

    def __str__(self) -> str:
        return f"{self.name} is {self.value}, needed are {self.needed}"


def low_limits(sandboxes: int, pids: int, root: Path = _SYSCTL) -> Iterator[KernelLimit]:
    """Yield the limits that are too low for so many sandboxes of at most `pids` processes each.

    A limit that this kernel does not have, or that cannot be read, is left out.
    """
    needed = {
        # A tenth of the sandboxes may be at their limit at once, and the others need some processes.
        "kernel/pid_max": sandboxes * (50 + pids // 10),
        "kernel/threads-max": sandboxes * (50 + pids // 10),
        # For each user, and each session has one of its own: a development server and its tools.
        "fs/inotify/max_user_instances": 128,
        "fs/inotify/max_user_watches": 65_536,
        # For the whole machine: connections through the bridges, their neighbours, open files, terminals.
        "net/netfilter/nf_conntrack_max": sandboxes * 256,
        "net/ipv4/neigh/default/gc_thresh3": sandboxes * 4,
        "fs/file-max": sandboxes * 4_096,
        "kernel/pty/max": sandboxes * 8,
    }
    for path, wanted in needed.items():
        try:
            value = int((root / path).read_text())
        except (OSError, ValueError):
            continue
        if value < wanted:
            yield KernelLimit(path.replace("/", "."), value, wanted)
