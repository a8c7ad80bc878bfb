"""The build context of an image: the tar that the engine builds it from, written to a temporary file."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

Filter = Callable[[str], bool]


class BuildContext:
    """The files of a build. Owner and time of each file are reset, so that equal content gives an equal tar."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="sandbox-build-")  # noqa: SIM115  (the caller of `finish` closes it)
        self._tar = tarfile.open(fileobj=self._file, mode="w")  # noqa: SIM115

    def add_bytes(self, name: str, content: bytes, *, mode: int = 0o644) -> None:
        """Add a file with this content."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), mode
        self._tar.addfile(_anonymous(info), io.BytesIO(content))

    def add_file(self, name: str, path: Path) -> None:
        """Add a copy of a file."""
        self._tar.add(path, name, recursive=False, filter=_anonymous)

    def add_tree(self, name: str, folder: Path, include: Filter = lambda _: True) -> None:
        """Add a folder and what is in it.

        `include` is called with each path relative to the folder. If it returns False for a subfolder, that subfolder
        and everything in it is left out.
        """

        def filtered(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
            relative = info.name.removeprefix(name).strip("/")
            return _anonymous(info) if not relative or include(relative) else None

        self._tar.add(folder, name, filter=filtered)

    def finish(self) -> IO[bytes]:
        """Complete the tar and return it, positioned at its start. The caller closes it."""
        self._tar.close()
        self._file.seek(0)
        return self._file


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mtime = 0
    info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
    return info


def is_source(relative: str) -> bool:
    """Return whether a path of a source folder is neither a cache nor hidden."""
    return not any(part == "__pycache__" or part.startswith(".") for part in Path(relative).parts)


def stamp_tree(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Return name, mode, size and time of change of each of a folder's sources: quick to read, and different after any
    change of them."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if is_source(name)]
        for name in filter(is_source, names):
            path = os.path.join(parent, name)
            stat = os.stat(path)
            found.append((path, stat.st_mode, stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(found))


def digest_tree(folder: Path) -> str:
    """Return the SHA-256 digest of a folder's sources: their names, contents and executable bits."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        relative = path.relative_to(folder).as_posix()
        if is_source(relative):
            executable = bool(path.stat().st_mode & 0o100)
            digest.update(f"{relative}\0{executable}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
