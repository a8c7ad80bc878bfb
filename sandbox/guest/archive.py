"""Packing and unpacking folders as tar archives, run as the sandbox's user (`as_user.py`).

put_tar {path}    raw body, a tar or gzipped tar: unpacked below the folder, which is created if it is missing. The
                  whole archive is checked before the first file is written: if it has a link, a device, a path out of
                  the folder, or is too large, nothing is unpacked.
get_tar {path, exclude?}    a stream: the folder as a gzipped tar, with names relative to it, without files and folders
                  of these names at any depth. Files that are removed or changed meanwhile do not break it.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import tarfile
from typing import IO, Any

from .errors import Refused, bad_request
from .request import argument
from .worker import ChunkedWriter, WorkerRequest
from .workspace import Workspace

MEMBERS_LIMIT = 200_000
UNPACKED_LIMIT = 8 * 1024 * 1024 * 1024
PIECE = 256 * 1024


def put_tar(workspace: Workspace, request: WorkerRequest) -> None:
    folder = workspace.path(request.args)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    with _temporary(folder) as spooled:
        while data := request.read():
            spooled.write(data)
        try:
            spooled.seek(0)
            with tarfile.open(fileobj=spooled, mode="r|*") as tar:
                check(tar, os.path.realpath(folder))
            spooled.seek(0)
            with tarfile.open(fileobj=spooled, mode="r|*") as tar:
                _unpack(tar, folder)
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise Refused("file_refused", f"not a readable tar archive: {error}", 400) from None
    request.answer({})


def _temporary(folder: str) -> IO[bytes]:
    """An unlinked file on the disk of the folder."""
    path = os.path.join(folder, f".archive.{os.urandom(6).hex()}.tmp")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return open(fd, "w+b")


def check(tar: tarfile.TarFile, folder: str) -> None:
    """Raise Refused if a member must not be unpacked below the folder, which is a path without links."""
    size = 0
    for count, member in enumerate(tar, 1):
        parts = member.name.split("/")
        if member.name.startswith("/") or ".." in parts or "\0" in member.name:
            raise Refused("file_refused", f"{member.name}: a path out of the folder", 400)
        if not (member.isreg() or member.isdir()):
            raise Refused("file_refused", f"{member.name}: a link or device; only files and folders are accepted", 400)
        target = os.path.realpath(os.path.join(folder, os.path.dirname(member.name.rstrip("/"))))
        if target != folder and not target.startswith(folder.rstrip("/") + "/"):
            raise Refused("file_refused", f"{member.name}: a link in the folder leads out of it", 400)
        size += member.size
        if count > MEMBERS_LIMIT or size > UNPACKED_LIMIT:
            raise Refused("file_refused", "the archive has too many members or is too large unpacked", 413)


def _unpack(tar: tarfile.TarFile, folder: str) -> None:
    for member in tar:
        target = os.path.join(folder, os.path.normpath(member.name))
        if member.isdir():
            os.makedirs(target, mode=0o755, exist_ok=True)
            continue
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        source = tar.extractfile(member)
        if source is None:
            raise tarfile.TarError(f"{member.name} has no content")
        # Always a new file: what exists may be a link, or open in another process.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            while data := source.read(PIECE):
                file.write(data)
            os.fchmod(fd, (member.mode & 0o755) | 0o600)


class _Stream:
    """The stream as a file for tarfile and gzip to write to."""

    def __init__(self, stream: ChunkedWriter) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        self._stream.write(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered here."""


def get_tar(workspace: Workspace, request: WorkerRequest) -> None:
    folder = workspace.path(request.args)
    exclude = argument(request.args, "exclude", list, [])
    if not all(isinstance(name, str) for name in exclude):
        raise bad_request("the names to exclude are not strings")
    # Opened here, so that a folder that cannot be read is refused before the stream begins.
    os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    stream = request.stream()
    target: Any = _Stream(stream)
    with (
        gzip.GzipFile(fileobj=target, mode="wb", compresslevel=1, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", bufsize=PIECE) as tar,
    ):
        _add_content(tar, folder, frozenset(exclude))
    stream.end()


def _add_content(tar: tarfile.TarFile, folder: str, exclude: frozenset[str]) -> None:
    """Add the content of a folder. What cannot be read is left out, and so are sockets, pipes and devices."""
    # The folders whose content is still to be added, with their names in the archive.
    pending = [(folder, "")]
    while pending:
        folder, prefix = pending.pop()
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(folder)):
                if name not in exclude:
                    path, name_inside = os.path.join(folder, name), prefix + name
                    if _add(tar, path, name_inside):
                        pending.append((path, f"{name_inside}/"))


def _add(tar: tarfile.TarFile, path: str, name: str) -> bool:
    """Add a file, link or folder without its content. Whether it is a folder."""
    try:
        member = tar.gettarinfo(path, name)
    except OSError:
        return False
    if member is None:  # a socket
        return False
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    if member.isreg() or member.islnk():
        _add_file(tar, path, member)
    elif member.isdir() or member.issym():
        tar.addfile(member)
    return member.isdir()


def _add_file(tar: tarfile.TarFile, path: str, member: tarfile.TarInfo) -> None:
    """Add a file, also a further name of one that was added already: that one may have been left out."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return
        member.type, member.linkname, member.size = tarfile.REGTYPE, "", found.st_size
        tar.addfile(member, _Padded(file))


class _Padded(io.RawIOBase):
    """A file of which as many bytes can be read as are asked for: zeros, if it has become shorter meanwhile."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size).ljust(size, b"\0")
