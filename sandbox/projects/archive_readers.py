"""Reads uploaded `.tar.gz` and `.zip` files. They may be hostile, so no declared size is trusted without a check."""

from __future__ import annotations

import gzip
import os
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

from sandbox.projects.archive_tree import ArchiveRefused, Node, NodeType, Tree, clean_path, is_platform_junk, shown
from sandbox.settings import Settings

CHUNK = 1 << 18
#: Maximum size of the headers (long names, extended attributes) of one tar member.
_TAR_HEADER_BYTES = 256 * 1024
#: Maximum number of entries in a tar's global headers, which are copied for every member. `git archive` writes one.
_TAR_GLOBAL_HEADERS = 32
#: Allowance for headers and padding of each member of a tar.
_TAR_OVERHEAD_BYTES = 4096
#: Maximum size of a zip's list of members, which is held in memory.
_ZIP_DIRECTORY_BYTES = 16 << 20
_ZIP_END = struct.Struct("<4s4H2LH")

_DAMAGED = "Pack the project again; the file may have been truncated in transfer."


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """The maximum size of an unpacked project."""

    max_bytes: int
    max_files: int
    #: Counts all members, including those that are dropped, such as node_modules.
    max_members: int = 60_000
    #: Maximum ratio of unpacked to packed size. It is checked only above `ratio_floor_bytes`.
    max_ratio: int = 200
    ratio_floor_bytes: int = 32 << 20

    @classmethod
    def of(cls, settings: Settings) -> ArchiveLimits:
        """Return the limits that the settings configure."""
        return cls(max_bytes=settings.max_project_mb << 20, max_files=settings.max_project_files)


class ArchiveReader(Protocol):
    """An open archive. Its `tree` is complete."""

    tree: Tree

    def open(self, node: Node) -> IO[bytes]:
        """Open the content of a file in the tree."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Close it."""


class TarReader:
    """Reads a `.tar.gz`. It is first decompressed to a temporary file in `scratch`, whose size is limited."""

    def __init__(self, source: Path, scratch: Path, limits: ArchiveLimits) -> None:
        self.tree = Tree(limits.max_members)
        self._members: list[tarfile.TarInfo] = []
        self._raw = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - closed by __exit__
        try:
            _gunzip(source, self._raw, limits)
            self._guard = _BoundedReads(self._raw)
            self._read_members()
        except BaseException:
            self._raw.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._raw.close()

    def open(self, node: Node) -> IO[bytes]:
        self._guard.budget = None
        opened: IO[bytes] | None = self._tar.extractfile(self._members[node.member])
        if opened is None:
            raise ArchiveRefused("archive_unreadable", f"{shown(node.path)} has no content", _DAMAGED)
        return opened

    def _read_members(self) -> None:
        self._raw.seek(0)
        name = "the first member"
        try:
            self._tar = tarfile.open(fileobj=self._guard, mode="r:", errorlevel=2)  # type: ignore[call-overload]  # noqa: SIM115
            while (member := self._next()) is not None:
                name = member.name
                self._add(member)
        except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError, OverflowError) as error:
            raise ArchiveRefused(
                "archive_unreadable", f"the tar cannot be read after {shown(name)}: {error}", _DAMAGED
            ) from error

    def _next(self) -> tarfile.TarInfo | None:
        self._guard.budget = _TAR_HEADER_BYTES
        member: tarfile.TarInfo | None = self._tar.next()
        # Otherwise tarfile keeps every member it has read, with all its headers.
        self._tar.members.clear()
        if len(self._tar.pax_headers) > _TAR_GLOBAL_HEADERS:
            raise ArchiveRefused("archive_unreadable", "the tar has too many global headers", _DAMAGED)
        return member

    def _add(self, member: tarfile.TarInfo) -> None:
        self.tree.count(member.name)
        member.pax_headers = {}
        path = clean_path(member.name)
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            raise _special(member.name)
        if not path:
            if not member.isdir() and not is_platform_junk(member.name):
                raise ArchiveRefused(
                    "archive_bad_name", f"{shown(member.name)} is not a valid name of a file", _DAMAGED
                )
            return
        if member.isdir():
            self.tree.add(Node(path, NodeType.FOLDER))
        elif member.issym():
            self.tree.add(Node(path, NodeType.LINK, target=member.linkname))
        elif member.islnk():
            self._add_hard_link(path, member)
        else:
            self.tree.add(Node(path, NodeType.FILE, member.size, bool(member.mode & 0o111), member=len(self._members)))
            self._members.append(member)

    def _add_hard_link(self, path: str, member: tarfile.TarInfo) -> None:
        """Add a hard link as a copy of the file that it names, which must precede it in the archive."""
        original = self.tree.nodes.get(clean_path(member.linkname))
        if original is None or original.type is not NodeType.FILE:
            raise ArchiveRefused(
                "archive_link_escapes",
                f"the hard link {shown(path)} to {shown(member.linkname)} names no file that precedes it",
                "Hard links may only name files of the same archive.",
            )
        self.tree.add(Node(path, NodeType.FILE, original.size, original.executable, member=original.member))


class ZipReader:
    """Reads a `.zip`."""

    def __init__(self, source: Path, limits: ArchiveLimits) -> None:
        self.tree = Tree(limits.max_members)
        _check_zip_end(source, limits.max_members)
        try:
            self._zip = zipfile.ZipFile(source)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
            raise ArchiveRefused("archive_unreadable", f"the zip cannot be read: {error}", _DAMAGED) from error
        try:
            self._members = self._zip.infolist()
            for index, member in enumerate(self._members):
                self._add(index, member)
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._zip.close()

    def open(self, node: Node) -> IO[bytes]:
        return self._zip.open(self._members[node.member])

    def _add(self, index: int, member: zipfile.ZipInfo) -> None:
        name = member.orig_filename.replace("\\", "/")
        self.tree.count(name)
        path = clean_path(name)
        mode = member.external_attr >> 16
        kind = stat.S_IFMT(mode)
        if member.flag_bits & 0x1:
            raise ArchiveRefused(
                "archive_encrypted", f"{shown(name)} is encrypted", "Pack the project again without a password."
            )
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            raise _special(name)
        if not path:
            return
        if name.endswith("/") or kind == stat.S_IFDIR:
            self.tree.add(Node(path, NodeType.FOLDER))
            return
        # The other methods may decompress an unlimited amount of data before the first byte is returned.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArchiveRefused(
                "archive_unreadable",
                f"{shown(name)} has an unsupported compression method (number {member.compress_type})",
                "Pack the zip with the usual method, deflate.",
            )
        if kind == stat.S_IFLNK:
            self.tree.add(Node(path, NodeType.LINK, target=self._link_target(name, member)))
        else:
            self.tree.add(Node(path, NodeType.FILE, member.file_size, bool(mode & 0o111), member=index))

    def _link_target(self, name: str, member: zipfile.ZipInfo) -> str:
        try:
            with self._zip.open(member) as opened:
                return opened.read(4096).decode("utf-8")
        except (zipfile.BadZipFile, EOFError, OSError, ValueError, zlib.error) as error:
            raise ArchiveRefused(
                "archive_unreadable", f"the link {shown(name)} cannot be read: {error}", _DAMAGED
            ) from error


class _BoundedReads:
    """Limits tarfile's reads to `budget` bytes while it reads headers, whatever size they declare."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.budget: int | None = _TAR_HEADER_BYTES

    def read(self, size: int = -1) -> bytes:
        if self.budget is not None:
            if size < 0 or size > self.budget:
                raise tarfile.ReadError("a member's header is too long")
            self.budget -= size
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _gunzip(source: Path, raw: IO[bytes], limits: ArchiveLimits) -> None:
    limit = limits.max_bytes + limits.max_members * _TAR_OVERHEAD_BYTES
    packed = max(source.stat().st_size, 1)
    written = 0
    try:
        with gzip.open(source, "rb") as stream:
            while chunk := stream.read(CHUNK):
                written += len(chunk)
                check_ratio(written, packed, limits)
                if written > limit:
                    raise too_large(limits.max_bytes)
                raw.write(chunk)
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # The disk caused it, not the archive.
        raise ArchiveRefused("archive_unreadable", f"the gzip cannot be read: {error}", _DAMAGED) from error


def check_ratio(unpacked: int, packed: int, limits: ArchiveLimits) -> None:
    """Raise ArchiveRefused if an archive expands by more than source code does."""
    if unpacked > limits.ratio_floor_bytes and unpacked > packed * limits.max_ratio:
        raise ArchiveRefused(
            "archive_ratio",
            f"it unpacks to more than {limits.max_ratio} times its size",
            "Leave out large, highly compressible files; they look like an attack.",
        )


def too_large(max_bytes: int, name: str = "") -> ArchiveRefused:
    """Return the error for a project that is too large. `name` is the file at which the limit was exceeded."""
    where = f" (exceeded at {shown(name)})" if name else ""
    return ArchiveRefused(
        "archive_too_large",
        f"it unpacks to more than {max_bytes // (1 << 20)} MiB{where}",
        "Leave out generated files: node_modules, .git, virtual environments, build output.",
    )


def _special(name: str) -> ArchiveRefused:
    return ArchiveRefused(
        "archive_special_file",
        f"{shown(name)} is neither a file, a folder nor a link",
        "Leave out devices, pipes and sockets.",
    )


def _check_zip_end(source: Path, max_members: int) -> None:
    """Check the end record before the library reads the whole list of members into memory."""
    with source.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - _ZIP_END.size - 0xFFFF)
        file.seek(start)
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _ZIP_END.size > len(tail):
        raise ArchiveRefused("archive_unreadable", "it is not a zip file, or its end is missing", _DAMAGED)
    _, _, _, _, members, directory, _, _ = _ZIP_END.unpack_from(tail, at)
    # In a zip64 archive, another record replaces these fields. Only archives above the limits need that.
    if members > max_members or tail[max(0, at - 20) : at].startswith(b"PK\x06\x07"):
        raise ArchiveRefused(
            "archive_too_many_files",
            f"there are more than {max_members} members",
            "Leave out generated files: node_modules, .git, virtual environments, build output.",
        )
    if directory > _ZIP_DIRECTORY_BYTES:
        raise ArchiveRefused(
            "archive_unreadable", "its list of members is too large for its number of members", _DAMAGED
        )
