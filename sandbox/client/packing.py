"""Packs a folder for upload: what git would not keep, and what an install makes anew, stays behind."""

from __future__ import annotations

import gzip
import hashlib
import os
import platform
import re
import stat
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pathspec import GitIgnoreSpec

from sandbox.client.errors import PackingFailed

#: Folders that are made anew in the sandbox, or mean nothing there.
LEFT_OUT = frozenset(
    {
        ".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", ".mypy_cache", ".pytest_cache",
        ".ruff_cache", ".hypothesis", ".tox", ".nox", ".next", ".nuxt", ".svelte-kit", ".turbo", ".parcel-cache",
        ".cache", ".vite", ".gradle", ".idea", ".vscode", ".DS_Store",
    }
)  # fmt: skip
MAX_BYTES = 64 * 1024 * 1024
MAX_FILES = 20_000


@dataclass(slots=True)
class Packed:
    """An archive ready to be sent; `path` is a temporary file that its taker removes."""

    path: Path
    content_type: str
    files: int = 0
    size_bytes: int = 0
    #: Links that lead out of the folder, sockets, devices: not packed.
    skipped: list[str] = field(default_factory=list)
    temporary: bool = True

    def remove(self) -> None:
        """Remove the temporary file; an archive that was given as it is stays."""
        if self.temporary:
            self.path.unlink(missing_ok=True)


def default_project_id(folder: Path) -> str:
    """A project id that is the same each time for this folder on this machine, and another for any other."""
    path = folder.resolve()
    name = path.name.removesuffix(".zip").removesuffix(".tgz").removesuffix(".tar.gz")
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "project"
    return f"{slug}-{hashlib.sha256(f'{platform.node()}:{path}'.encode()).hexdigest()[:8]}"


def pack(source: Path, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> Packed:
    """Pack a folder as .tar.gz into a temporary file; a .zip, .tar.gz or .tgz file is taken as it is. Blocks.

    Left out: what the folder's .gitignore files name, and `LEFT_OUT` in any case. A symbolic link is kept as a link if
    it leads to something inside the folder. Raises PackingFailed, and leaves nothing behind, when the folder cannot be
    read or the archive would be larger than `max_bytes`.
    """
    if source.is_file():
        return _ready_made(source, max_bytes)
    if not source.is_dir():
        raise PackingFailed(f"{source} is no folder and no archive", hint="Give the project's folder.")
    handle, name = tempfile.mkstemp(prefix="sandbox-upload-", suffix=".tar.gz")
    packed = Packed(Path(name), "application/gzip")
    try:
        with os.fdopen(handle, "wb") as out:
            _write(source.resolve(), out, packed, max_bytes, max_files)
        packed.size_bytes = packed.path.stat().st_size
    except OSError as error:
        packed.remove()
        raise PackingFailed(f"{source} cannot be packed: {error}", hint="Can you read all of it?") from error
    except BaseException:
        packed.remove()
        raise
    return packed


def _ready_made(source: Path, max_bytes: int) -> Packed:
    size = source.stat().st_size
    if size > max_bytes:
        raise PackingFailed(
            f"{source} is {size:,} bytes; at most {max_bytes:,} are sent", hint="Leave out what an install makes anew."
        )
    if source.name.endswith((".tar.gz", ".tgz")):
        return Packed(source, "application/gzip", size_bytes=size, temporary=False)
    if source.suffix == ".zip":
        return Packed(source, "application/zip", size_bytes=size, temporary=False)
    raise PackingFailed(f"{source} is neither a folder nor a .zip or .tar.gz", hint="Give the project's folder.")


def _write(root: Path, out: IO[bytes], packed: Packed, max_bytes: int, max_files: int) -> None:
    sizes: Counter[str] = Counter()
    # No name and no time in the gzip header: an unchanged folder gives the same bytes.
    with gzip.GzipFile("", "wb", 6, out, mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
        for relative, path in walk(root):
            info = _describe(root, relative, path)
            if info is None:
                packed.skipped.append(relative)
                continue
            if info.isreg():
                with path.open("rb") as content:
                    archive.addfile(info, content)
            else:
                archive.addfile(info)
            packed.files += not info.isdir()
            sizes[relative.split("/", 1)[0]] += info.size
            if packed.files > max_files or out.tell() > max_bytes:
                what = f"more than {max_files:,} files" if packed.files > max_files else f"over {max_bytes:,} bytes"
                largest = ", ".join(f"{name} ({size:,} bytes)" for name, size in sizes.most_common(3))
                raise PackingFailed(
                    f"{root} is too large to send: {what}",
                    hint=f"Name what is not source in .gitignore. Largest so far: {largest}",
                )
    if out.tell() > max_bytes:
        raise PackingFailed(
            f"{root} is too large to send: {out.tell():,} bytes packed, at most {max_bytes:,}",
            hint="Name what is not source in .gitignore.",
        )


def _describe(root: Path, relative: str, path: Path) -> tarfile.TarInfo | None:
    status = path.lstat()
    info = tarfile.TarInfo(relative)
    info.mode, info.mtime = stat.S_IMODE(status.st_mode) & 0o777, int(status.st_mtime)
    if stat.S_ISREG(status.st_mode):
        info.size = status.st_size
    elif stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(status.st_mode):
        target = path.resolve()
        if not target.exists() or not target.is_relative_to(root):
            return None
        info.type = tarfile.SYMTYPE
        info.linkname = os.path.relpath(target, path.parent)
    else:
        return None
    return info


def walk(root: Path) -> Iterator[tuple[str, Path]]:
    """What of the folder is packed, as (path relative to it, path), in a stable order, a folder before its content."""
    yield from _walk(root, "", [])


def _walk(folder: Path, prefix: str, specs: list[tuple[str, GitIgnoreSpec]]) -> Iterator[tuple[str, Path]]:
    ignore = folder / ".gitignore"
    if ignore.is_file():
        lines = ignore.read_text(encoding="utf-8", errors="replace").splitlines()
        specs = [*specs, (prefix, GitIgnoreSpec.from_lines(lines))]
    for entry in sorted(os.scandir(folder), key=lambda found: found.name):
        relative = prefix + entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.name in LEFT_OUT or _ignored(relative + "/" * is_folder, specs):
            continue
        path = folder / entry.name
        if is_folder and (path / "pyvenv.cfg").is_file():
            continue
        yield relative, path
        if is_folder:
            yield from _walk(path, relative + "/", specs)


def _ignored(relative: str, specs: list[tuple[str, GitIgnoreSpec]]) -> bool:
    """As git does: the deepest .gitignore that has a word to say about the path decides."""
    for prefix, spec in reversed(specs):
        verdict = spec.check_file(relative[len(prefix) :]).include
        if verdict is not None:
            return verdict
    return False
