"""Validates an uploaded archive, which may be hostile, and converts it into a deterministic `.tar.gz`."""

from __future__ import annotations

import errno
import gzip
import hashlib
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

from sandbox.errors import InvalidInput, Kind
from sandbox.projects.archive_readers import (
    CHUNK,
    ArchiveLimits,
    ArchiveReader,
    TarReader,
    ZipReader,
    check_ratio,
    too_large,
)
from sandbox.projects.archive_tree import ArchiveRefused, Node, NodeType, shown

#: Owner and modification time of all files in a normalised project. Commands in a container run as this user.
OWNER_ID = 1000
FIXED_MTIME = 946_684_800


class ArchiveKind(StrEnum):
    """The accepted archive formats."""

    TAR_GZ = "tar.gz"
    ZIP = "zip"

    @classmethod
    def of(cls, content_type: str) -> ArchiveKind:
        """Return the format for a `Content-Type` header, whose parameters are ignored. Raises InvalidInput."""
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type in _MEDIA_TYPES:
            return _MEDIA_TYPES[media_type]
        raise InvalidInput(
            f"archives of type {shown(media_type or 'unknown')} are not accepted",
            hint="Send a .tar.gz as application/gzip or a .zip as application/zip.",
            code="archive_unsupported",
            kind=Kind.UNSUPPORTED,
        )


_MEDIA_TYPES = {
    "application/gzip": ArchiveKind.TAR_GZ,
    "application/x-gzip": ArchiveKind.TAR_GZ,
    "application/x-gtar": ArchiveKind.TAR_GZ,
    "application/x-tgz": ArchiveKind.TAR_GZ,
    "application/x-tar+gzip": ArchiveKind.TAR_GZ,
    "application/x-compressed-tar": ArchiveKind.TAR_GZ,
    "application/zip": ArchiveKind.ZIP,
    "application/x-zip": ArchiveKind.ZIP,
    "application/x-zip-compressed": ArchiveKind.ZIP,
}


@dataclass(frozen=True, slots=True)
class NormalisedProject:
    """A normalised archive. `digest` is `sha256:` and the hash of the uncompressed tar."""

    digest: str
    files: int
    size_bytes: int


def normalise(source: Path, kind: ArchiveKind, limits: ArchiveLimits, target: Path) -> NormalisedProject:
    """Validate the archive at `source` and write its project to `target`, as a `.tar.gz`.

    The same files give the same bytes, however they were packed: files are sorted, and have the same owner and time; of
    their mode only the executable bit is preserved. Raises ArchiveRefused; then `target` does not exist. Takes up to a
    minute with bounded memory: call it in a worker process. The disk of `target` needs space for the unpacked project
    and for the result.
    """
    with _open(source, kind, limits, target.parent) as reader:
        nodes = reader.tree.project_nodes()
        files, size = _measure(nodes, limits, source.stat().st_size)
        try:
            digest = _write(reader, nodes, target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
    return NormalisedProject(digest, files, size)


def _open(source: Path, kind: ArchiveKind, limits: ArchiveLimits, scratch: Path) -> ArchiveReader:
    return ZipReader(source, limits) if kind is ArchiveKind.ZIP else TarReader(source, scratch, limits)


def _measure(nodes: dict[str, Node], limits: ArchiveLimits, packed: int) -> tuple[int, int]:
    """Return the number of files and bytes that the members declare.

    `_write` checks that the contents have these sizes.
    """
    files = size = 0
    for node in nodes.values():
        if node.type is NodeType.FOLDER:
            continue
        files += 1
        size += node.size
        if files > limits.max_files:
            raise ArchiveRefused(
                "archive_too_many_files",
                f"the project has more than {limits.max_files} files (exceeded at {shown(node.path)})",
                "Leave out generated files such as build output.",
            )
        if size > limits.max_bytes:
            raise too_large(limits.max_bytes, node.path)
    check_ratio(size, max(packed, 1), limits)
    if files == 0:
        raise ArchiveRefused(
            "project_empty", "there is no file in the archive", "Pack the folder that contains the project's source."
        )
    return files, size


def _write(reader: ArchiveReader, nodes: dict[str, Node], target: Path) -> str:
    with target.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
        hashing = _Hashing(packed)
        with tarfile.open(fileobj=hashing, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
            for node in nodes.values():
                _write_node(reader, node, tar)
    return f"sha256:{hashing.hash.hexdigest()}"


def _write_node(reader: ArchiveReader, node: Node, tar: tarfile.TarFile) -> None:
    info = tarfile.TarInfo(node.path)
    info.uid = info.gid = OWNER_ID
    info.mtime = FIXED_MTIME
    if node.type is NodeType.FOLDER:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)
    elif node.type is NodeType.LINK:
        info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, node.target
        tar.addfile(info)
    else:
        info.size, info.mode = node.size, 0o755 if node.executable else 0o644
        try:
            with reader.open(node) as content:
                sized = _SizedReader(content, node)
                tar.addfile(info, sized)  # type: ignore[arg-type]
                sized.check_end()
        except _UNREADABLE as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise  # The disk caused it, not the archive. A place before the beginning of the file is invalid.
            raise ArchiveRefused(
                "archive_unreadable",
                f"{shown(node.path)} cannot be unpacked: {error}",
                "Pack the project again; the file may have been damaged in transfer.",
            ) from error


#: What the libraries raise for a damaged member. zipfile raises NotImplementedError for a compression that it lacks.
_UNREADABLE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)


class _Hashing:
    """Passes writes on, and computes their hash."""

    def __init__(self, out: gzip.GzipFile) -> None:
        self._out = out
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return self._out.write(data)


class _SizedReader:
    """Reads a member and checks that it has exactly the declared size."""

    def __init__(self, content: IO[bytes], node: Node) -> None:
        self._content = content
        self._node = node

    def read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            chunk = self._content.read(min(size - len(data), CHUNK))
            if not chunk:
                raise self._mismatch("is shorter")
            data += chunk
        return bytes(data)

    def check_end(self) -> None:
        if self._content.read(1):
            raise self._mismatch("is longer")

    def _mismatch(self, difference: str) -> ArchiveRefused:
        return ArchiveRefused(
            "archive_unreadable",
            f"{shown(self._node.path)} {difference} than the archive declares",
            "Pack the project again; the file may have been truncated in transfer.",
        )
