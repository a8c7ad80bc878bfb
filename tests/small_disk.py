"""A small file system that tests fill up."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SmallDisk:
    """A tmpfs of `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    @property
    def free(self) -> int:
        """Free bytes."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Write a file until only `leave` bytes are free."""
        with self._ballast.open("ab", buffering=0) as file:
            while (left := self.free - leave) > 0:
                try:
                    file.write(bytes(min(left, 1 << 20)))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    return

    def clear(self) -> None:
        """Remove what `fill` wrote."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, megabytes: int, mode: str = "0711") -> Iterator[SmallDisk]:
    """Mount a tmpfs of this size on a new folder. Needs root."""
    folder.mkdir()
    options = f"size={megabytes}m,mode={mode}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "sandbox-test", str(folder)], check=True)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()
