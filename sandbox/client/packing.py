"""Packs a folder for upload, without files that git ignores and files that an installation generates."""

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

#: Names of files and folders that are generated in the sandbox, or are useless there.
EXCLUDED_NAMES = frozenset(
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
    """An archive that is ready for upload. If `temporary`, the caller removes it with `remove`."""

    path: Path
    content_type: str
    files: int = 0
    size_bytes: int = 0
    #: Paths that were not packed: links that lead out of the folder, sockets and devices.
    skipped: list[str] = field(default_factory=list)
    temporary: bool = True

    def remove(self) -> None:
        """Delete the archive if it is a temporary file."""
        if self.temporary:
            self.path.unlink(missing_ok=True)


def default_project_id(folder: Path) -> str:
    """Return a project id for a folder. It is the same each time, and differs between folders and between machines."""
    path = folder.resolve()
    name = path.name.removesuffix(".zip").removesuffix(".tgz").removesuffix(".tar.gz")
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "project"
    return f"{slug}-{hashlib.sha256(f'{platform.node()}:{path}'.encode()).hexdigest()[:8]}"


def pack(source: Path, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> Packed:
    """Pack a folder as .tar.gz into a temporary file. A .zip, .tar.gz or .tgz file is returned unchanged. Blocks.

    Leaves out files that the folder's .gitignore files name, and `EXCLUDED_NAMES` in any case. A symbolic link is
    packed as a link if its target is inside the folder. Raises PackingFailed if the folder cannot be read or the
    archive would exceed a limit.
    """
    if source.is_file():
        return _existing_archive(source, max_bytes)
    if not source.is_dir():
        raise PackingFailed(f"{source} is neither a folder nor a file", hint="Pass the project's folder.")
    handle, name = tempfile.mkstemp(prefix="sandbox-upload-", suffix=".tar.gz")
    packed = Packed(Path(name), "application/gzip")
    try:
        with os.fdopen(handle, "wb") as out:
            _write(source.resolve(), out, packed, max_bytes, max_files)
        packed.size_bytes = packed.path.stat().st_size
    except OSError as error:
        packed.remove()
        raise PackingFailed(
            f"{source} cannot be packed: {error}", hint="Check that you may read all of its files."
        ) from error
    except BaseException:
        packed.remove()
        raise
    return packed


def _existing_archive(source: Path, max_bytes: int) -> Packed:
    size = source.stat().st_size
    if size > max_bytes:
        raise PackingFailed(
            f"{source} is {size:,} bytes; the maximum is {max_bytes:,}",
            hint="Leave out files that an installation generates.",
        )
    if source.name.endswith((".tar.gz", ".tgz")):
        return Packed(source, "application/gzip", size_bytes=size, temporary=False)
    if source.suffix == ".zip":
        return Packed(source, "application/zip", size_bytes=size, temporary=False)
    raise PackingFailed(f"{source} is neither a folder nor a .zip or .tar.gz", hint="Pass the project's folder.")


def _write(root: Path, out: IO[bytes], packed: Packed, max_bytes: int, max_files: int) -> None:
    sizes: Counter[str] = Counter()
    # The gzip header contains no name and no time, so that an unchanged folder gives the same bytes.
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
                    f"{root} is too large to upload: {what}",
                    hint=f"List files that are not source code in .gitignore. Largest so far: {largest}",
                )
    if out.tell() > max_bytes:
        raise PackingFailed(
            f"{root} is too large to upload: {out.tell():,} bytes packed; the maximum is {max_bytes:,}",
            hint="List files that are not source code in .gitignore.",
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
    """Yield what is packed, as (relative path, path), in a stable order, each folder before its content."""
    yield from _walk(root, "", [])


def _walk(folder: Path, prefix: str, specs: list[tuple[str, GitIgnoreSpec]]) -> Iterator[tuple[str, Path]]:
    ignore = folder / ".gitignore"
    if ignore.is_file():
        lines = ignore.read_text(encoding="utf-8", errors="replace").splitlines()
        specs = [*specs, (prefix, GitIgnoreSpec.from_lines(lines))]
    for entry in sorted(os.scandir(folder), key=lambda found: found.name):
        relative = prefix + entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.name in EXCLUDED_NAMES or _ignored(relative + "/" * is_folder, specs):
            continue
        path = folder / entry.name
        if is_folder and (path / "pyvenv.cfg").is_file():
            continue
        yield relative, path
        if is_folder:
            yield from _walk(path, relative + "/", specs)


def _ignored(relative: str, specs: list[tuple[str, GitIgnoreSpec]]) -> bool:
    """Return whether a path is ignored. As in git, the deepest .gitignore with a matching pattern decides."""
    for prefix, spec in reversed(specs):
        ignored = spec.check_file(relative[len(prefix) :]).include
        if ignored is not None:
            return ignored
    return False
