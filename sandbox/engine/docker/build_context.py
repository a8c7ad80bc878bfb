"""What is sent to the engine to build an image from: a tar, put together in a temporary file."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

Filter = Callable[[str], bool]


class BuildContext:
    """Files for a build, all owned by root, with no time of their own: equal content is an equal context."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="sandbox-build-")  # noqa: SIM115  (closed by `finish`'s reader)
        self._tar = tarfile.open(fileobj=self._file, mode="w")  # noqa: SIM115

    def add_bytes(self, name: str, content: bytes, *, mode: int = 0o644) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), mode
        self._tar.addfile(_anonymous(info), io.BytesIO(content))

    def add_file(self, name: str, path: Path) -> None:
        self._tar.add(path, name, recursive=False, filter=_anonymous)

    def add_tree(self, name: str, folder: Path, keep: Filter = lambda _: True) -> None:
        """Add a folder. `keep` is asked with each path relative to it; a folder refused is not entered."""

        def filtered(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
            relative = info.name.removeprefix(name).strip("/")
            return _anonymous(info) if not relative or keep(relative) else None

        self._tar.add(folder, name, filter=filtered)

    def finish(self) -> IO[bytes]:
        """The finished tar, at its start. The caller closes it."""
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
    """Whether a path of a source folder is content: caches and hidden files are not."""
    return not any(part == "__pycache__" or part.startswith(".") for part in Path(relative).parts)


def digest_tree(folder: Path) -> str:
    """The digest of a folder's content: names, bytes and whether a file may be executed. Caches do not count."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        relative = path.relative_to(folder).as_posix()
        if is_source(relative):
            executable = bool(path.stat().st_mode & 0o100)
            digest.update(f"{relative}\0{executable}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
