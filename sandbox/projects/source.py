"""Read-only access to the files of a packed project, used to detect its apps."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import tempfile
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Protocol

from sandbox.projects.archive_tree import is_within

#: Larger files are not read.
MAX_TEXT_BYTES = 512 * 1024
#: Projects up to this size are decompressed in memory, larger ones to a temporary file.
_SPOOL_BYTES = 8 << 20


class ProjectSource(Protocol):
    """The files of a project, without links."""

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of all files, sorted, with "/" as separator."""

    def read_text(self, path: str, limit: int = MAX_TEXT_BYTES) -> str | None:
        """Return the text of a file, or None if it does not exist or has more than `limit` bytes."""


class TarSource:
    """The files of a normalised project. Created by `open_source`."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._members = {member.name: member for member in tar if member.isreg()}

    @cached_property
    def files(self) -> tuple[str, ...]:
        return tuple(self._members)

    def read_text(self, path: str, limit: int = MAX_TEXT_BYTES) -> str | None:
        member = self._members.get(path)
        opened = self._tar.extractfile(member) if member is not None and member.size <= limit else None
        if opened is None:
            return None
        with opened:
            return decode(opened.read())


@contextmanager
def open_source(archive: Path | IO[bytes]) -> Iterator[TarSource]:
    """Open a `.tar.gz` that `archive.normalise` has written. Blocks: call it in a thread."""
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as raw:
        with gzip.open(archive) as packed:
            shutil.copyfileobj(packed, raw)
        raw.seek(0)
        with tarfile.open(fileobj=raw, mode="r:") as tar:
            yield TarSource(tar)


def decode(data: bytes) -> str:
    """Decode UTF-8 with or without a byte order mark, or UTF-16 with one."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "replace")


@dataclass(frozen=True)
class Folder:
    """One folder of a source. Paths are relative to it."""

    source: ProjectSource
    path: str = "."
    #: Subfolders whose files are left out.
    excluded: frozenset[str] = frozenset()
    #: Problems found in the files. They are part of the error message if nothing is detected.
    notes: list[str] = field(default_factory=list)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Paths of all files in it and below it, sorted."""
        found = self.source.files
        if self.path != ".":
            # All paths below it are next to each other. "0" is the character after "/".
            start, end = bisect_left(found, f"{self.path}/"), bisect_left(found, f"{self.path}0")
            found = tuple(path[len(self.path) + 1 :] for path in found[start:end])
        return tuple(path for path in found if not is_within(path, self.excluded)) if self.excluded else found

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of the files that are directly in it."""
        return frozenset(path for path in self.files if "/" not in path)

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """Names of the folders that are directly in it, sorted."""
        return tuple(sorted({path.split("/", 1)[0] for path in self.files if "/" in path}))

    def has(self, path: str) -> bool:
        """Return whether there is a file with this path."""
        return path in self._all

    def read(self, path: str, limit: int = MAX_TEXT_BYTES) -> str | None:
        """Return the text of a file, or None if it does not exist or has more than `limit` bytes."""
        if not self.has(path):
            return None
        return self.source.read_text(self.full_path(path), limit)

    def full_path(self, path: str) -> str:
        """Convert a path in this folder into a path in the project."""
        return path if self.path == "." else f"{self.path}/{path}"

    def inner(self, path: str) -> Folder:
        """Return the folder with this path below this one."""
        return Folder(self.source, self.full_path(path), notes=self.notes)

    @cached_property
    def _all(self) -> frozenset[str]:
        return frozenset(self.files)
