"""What was added or changed below folders since a moment, and archives of it, run as the sandbox's user
(`as_user.py`).

changes {since?, folders, excluded}         {files, bytes, folders: [those in which everything is new]}
pack_changes {since?, folders, excluded}    a stream: a tar of these files and folders, with names relative to /
unpack_changes {}                           raw body, such a tar: unpacked at /, as the user

`since` is a file: what has a later time of change than it has counts. Without it, everything counts.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from typing import Any, NamedTuple

from .archive import MEMBERS_LIMIT
from .errors import DISK_FULL, Refused, bad_request
from .request import argument
from .worker import WorkerRequest
from .workspace import Workspace

TAR = "/bin/tar"
PIECE = 256 * 1024
#: Most folders that are named in an answer.
FOLDERS_LIMIT = 10_000
_ERRORS_SHOWN = 500
_PACKED = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)


class _Found(NamedTuple):
    """Paths of what changed, the bytes of the files among it, and the topmost folders in which everything is new."""

    paths: list[bytes]
    size: int
    whole: list[str]


def changes(workspace: Workspace, request: WorkerRequest) -> None:
    found = _find(workspace, request.args)
    if len(found.whole) > FOLDERS_LIMIT:
        raise Refused("file_refused", f"more than {FOLDERS_LIMIT} folders are new", 413)
    request.answer({"files": len(found.paths), "bytes": found.size, "folders": found.whole})


def pack_changes(workspace: Workspace, request: WorkerRequest) -> None:
    names = b"\0".join(path.lstrip(b"/") for path in _find(workspace, request.args).paths)
    stream = request.stream()
    with _memory_file(names) as listed, _memory_file() as errors:
        command = [TAR, "--create", "--file=-", "--directory=/", "--no-recursion", "--null", "--verbatim-files-from"]
        with subprocess.Popen(
            [*command, "--files-from=-"], stdin=listed, stdout=subprocess.PIPE, stderr=errors, env={}
        ) as tar:
            while tar.stdout and (data := tar.stdout.read(PIECE)):
                stream.write(data)
    if tar.returncode == 0:  # without its end, the reader sees that the stream broke off
        stream.end()


def unpack_changes(_workspace: Workspace, request: WorkerRequest) -> None:
    command = [TAR, "--extract", "--file=-", "--directory=/", "--preserve-permissions", "--no-same-owner"]
    # The members of a folder are not next to each other, so its time and mode are set at the end.
    command.append("--delay-directory-restore")
    with (
        _memory_file() as errors,
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors, env={}, bufsize=0) as tar,
    ):
        if tar.stdin:
            # A tar that has failed reads no more. Its exit code and its errors tell why.
            with tar.stdin, contextlib.suppress(BrokenPipeError):
                while data := request.read():
                    tar.stdin.write(data)
        if tar.wait() != 0:
            errors.seek(0)
            text = errors.read(_ERRORS_SHOWN).decode(errors="replace").strip()
            if any(os.strerror(number) in text for number in DISK_FULL):
                raise Refused("disk_full", text, 507)
            raise Refused("file_refused", f"not unpacked: {text}", 400)
    request.answer({})


def _memory_file(content: bytes = b"") -> Any:
    fd = os.memfd_create("tar")
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return os.fdopen(fd, "r+b", buffering=0)


def _find(workspace: Workspace, args: dict[str, Any]) -> _Found:
    """Look through the folders, without following links. Sockets, pipes and devices are left out."""
    moment = -1
    if argument(args, "since", str, None) is not None:
        moment = os.lstat(workspace.path(args, "since")).st_ctime_ns
    excluded = {workspace.path({"path": path}) for path in argument(args, "excluded", list, [])}
    found = _Found([], 0, [])
    for folder in argument(args, "folders", list):
        part = _look_through(workspace.path({"path": folder}), moment, excluded, MEMBERS_LIMIT - len(found.paths))
        found = _Found(found.paths + part.paths, found.size + part.size, found.whole + part.whole)
    return found


def _look_through(root: str, moment: int, excluded: set[str], limit: int) -> _Found:
    """See `_find`. Without recursion, because a sandbox may nest its folders deeper than Python's stack."""
    folders, parents = [root], {root: root}
    paths: list[bytes] = []
    size = 0
    #: Folders that hold something older than the moment, or of which a part is left out.
    mixed = {root}
    for folder in folders:
        try:
            entries = list(os.scandir(folder))
        except (FileNotFoundError, PermissionError):
            mixed.add(folder)
            continue
        for entry in entries:
            facts = entry.stat(follow_symlinks=False)
            if entry.path in excluded or stat.S_IFMT(facts.st_mode) not in _PACKED:
                mixed.add(folder)
                continue
            if facts.st_ctime_ns > moment:
                paths.append(os.fsencode(entry.path))
                size += facts.st_size if stat.S_ISREG(facts.st_mode) else 0
            else:
                mixed.add(folder)
            if stat.S_ISDIR(facts.st_mode):
                folders.append(entry.path)
                parents[entry.path] = folder
            if len(folders) + len(paths) > limit:
                raise bad_request(f"more than {limit} files and folders")
    for folder in reversed(folders):  # children come after their parents
        if folder in mixed:
            mixed.add(parents[folder])
    whole = [folder for folder in folders if folder not in mixed and parents[folder] in mixed]
    return _Found(paths, size, whole)
