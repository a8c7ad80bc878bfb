"""A group of processes that the kernel lets run only while nobody else on this machine wants to (a control group).

Niceness alone lets a process finish its slice, up to the next tick, before it gives way to whoever woke up: some
milliseconds of somebody's answer. One that is idle in this sense gives way at once.

Such a group is made below the one this process is in. That takes root as a rule, and does not go in most containers;
with version 2 of control groups it goes where the group this process is in hands the controller `cpu` down.
Written here: the libraries for control groups are no longer kept, or belong to a container engine.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_PREFIX = "purple8-intake-"
#: What the whole group gets of a processor that one other wants as well, once it is not to wait for everybody:
#: four tenths of a share, a tenth for each of two processes and for what PostgreSQL does for them. By version.
SHARES = {"cpu.shares": "410", "cpu.weight": "40"}

#: One who is ending is not listed, and still in it, for a moment. The pause is in seconds.
_REMOVE_TRIES, _REMOVE_PAUSE = 50, 0.02


@dataclass(frozen=True, slots=True)
class IdleGroup:
    """Lives until it is removed; one whose maker was killed goes when the next is made."""

    folder: Path
    #: The group that it was made in: where that is, what else it controls, and its name for those that are in it.
    outer: Path
    controllers: str
    outer_name: str

    @classmethod
    def make(cls) -> IdleGroup | None:
        """A new one; None where the kernel has no such groups, or lets us make none."""
        for outer, controllers, name in _of_this_process():
            _remove_left_over(outer)
            try:
                folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=outer))
            except OSError:
                continue
            group = cls(folder, outer, controllers, name)
            if group.wait_for_everybody():
                return group
            group.remove()
        return None

    def add(self, pid: int) -> None:
        """Put a process in, if it still is where the group was made: what somebody put elsewhere stays there."""
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            if _memberships(pid).get(self.controllers) == self.outer_name:
                (self.folder / "cgroup.procs").write_text(str(pid), encoding="ascii")

    def wait_for_everybody(self) -> bool:
        """Run only while nobody else wants to. False if the kernel will not have it."""
        try:
            (self.folder / "cpu.idle").write_text("1", encoding="ascii")
        except OSError:
            return False
        return True

    def take_part(self) -> None:
        """Get a small share, however much others want."""
        with contextlib.suppress(OSError):  # removed meanwhile
            (self.folder / "cpu.idle").write_text("0", encoding="ascii")
            for name, share in SHARES.items():
                if (self.folder / name).exists():
                    (self.folder / name).write_text(share, encoding="ascii")

    def remove(self) -> None:
        """Put those that are in it back to where they came from. Blocks while some of them are about to end."""
        for _ in range(_REMOVE_TRIES):
            with contextlib.suppress(OSError):
                for pid in (self.folder / "cgroup.procs").read_text(encoding="ascii").split():
                    with contextlib.suppress(OSError):  # it has ended
                        (self.outer / "cgroup.procs").write_text(pid, encoding="ascii")
                self.folder.rmdir()
            if not self.folder.exists():
                return
            time.sleep(_REMOVE_PAUSE)


def _of_this_process() -> Iterator[tuple[Path, str, str]]:
    """The groups that may say who gets a processor: version 1's, then version 2's."""
    try:
        memberships = _memberships("self")
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux, or without such groups
        return
    found = []
    for mount in mounts:
        place, _, what = mount.partition(" - ")
        root, folder = place.split(" ")[3:5]
        kind, _, options = what.split(" ")[:3]
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(",")):
            wanted = "" if kind == "cgroup2" else "cpu"
            found += [(kind, root, folder, *own) for own in memberships.items() if wanted in own[0].split(",")]
    for _, root, folder, controllers, name in sorted(found):
        if PurePosixPath(name).is_relative_to(root) and ".." not in name:
            yield Path(folder) / PurePosixPath(name).relative_to(root), controllers, name


def _memberships(pid: int | str) -> dict[str, str]:
    """Names of the groups that a process is in, by what they control: `cpu` or `cpu,cpuacct`; version 2 has no word."""
    lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    return dict(line.split(":", 2)[1:] for line in lines)


def _remove_left_over(outer: Path) -> None:
    for folder in outer.glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).split("-")[0]
        if not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(OSError):  # there is somebody in it
                folder.rmdir()
