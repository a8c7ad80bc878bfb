"""Functions on single files and folders, run as the sandbox's user (`as_user.py`)."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

from .errors import Refused
from .request import argument
from .worker import WorkerRequest
from .workspace import Workspace

#: Most entries of one listing, and bytes of their paths; a client asks for those that come after.
LIST_ENTRIES = 1000
LIST_BYTES = 256 * 1024
PIECE = 256 * 1024


def read_file(workspace: Workspace, request: WorkerRequest) -> None:
    path = workspace.path(request.args)
    # Not blocking: opening a named pipe must not wait until a process writes to it.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Refused("file_refused", f"{path}: not a regular file")
        stream = request.stream()
        while data := file.read(PIECE):
            stream.write(data)
        stream.end()


def write_file(workspace: Workspace, request: WorkerRequest) -> None:
    asked = workspace.path(request.args)
    path = _target(workspace, asked)
    mode = argument(request.args, "mode", int, None)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    if mode is None:
        mode = _mode_of(path)
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)[:200]}.{os.urandom(6).hex()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            while data := request.read():
                file.write(data)
            os.fchmod(file.fileno(), stat.S_IMODE(mode))
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    request.answer(workspace.info(asked, os.lstat(path)))


def _target(workspace: Workspace, path: str) -> str:
    """The file to write: of a link, what it leads to, as when a program opens it. Raises Refused.

    A link in the workspace that leads out of it is refused, because the file would not be where its reader looks.
    """
    if not os.path.islink(path):
        return path
    target, folder = os.path.realpath(path), os.path.realpath(workspace.folder)
    if os.path.islink(target):
        raise Refused("file_refused", f"{path}: too many levels of links")
    inside = os.path.commonpath((os.path.realpath(os.path.dirname(path)), folder)) == folder
    if inside and os.path.commonpath((target, folder)) != folder:
        raise Refused("file_refused", f"{path}: is a link out of the workspace, to {target}")
    return target


def _mode_of(path: str) -> int:
    try:
        facts = os.lstat(path)
    except FileNotFoundError:
        return 0o644
    return stat.S_IMODE(facts.st_mode) if stat.S_ISREG(facts.st_mode) else 0o644


def stat_path(workspace: Workspace, request: WorkerRequest) -> None:
    path = workspace.path(request.args)
    try:
        info = workspace.info(path, os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        info = None
    request.answer({"info": info})


def list_folder(workspace: Workspace, request: WorkerRequest) -> None:
    path = workspace.path(request.args)
    depth = argument(request.args, "depth", int)
    # The last entry of the page before, relative to the folder.
    after = argument(request.args, "after", str, "")
    found: list[dict[str, Any]] = []
    length = 0
    for entry in _walk(path, depth, after.split("/") if after else []):
        with contextlib.suppress(FileNotFoundError):
            found.append(workspace.info(entry.path, entry.stat(follow_symlinks=False)))
            length += len(entry.path)
        if len(found) >= LIST_ENTRIES or length >= LIST_BYTES:
            break
    request.answer({"files": found, "paged": True})


def _walk(folder: str, depth: int, after: list[str]) -> Iterator[os.DirEntry[str]]:
    """The entries below a folder in the order of their names, each folder before what is in it, without those up to
    the one that `after` names by its parts."""
    first = after[0] if after else ""
    with os.scandir(folder) as entries:
        ordered = sorted((entry for entry in entries if entry.name >= first), key=lambda entry: entry.name)
    for entry in ordered:
        reached = after[1:] if entry.name == first else []
        if not after or entry.name != first:
            yield entry
        if depth > 1 and entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                yield from _walk(entry.path, depth - 1, reached)


def make_folder(workspace: Workspace, request: WorkerRequest) -> None:
    os.makedirs(workspace.path(request.args), mode=0o755, exist_ok=True)
    request.answer({})


def move(workspace: Workspace, request: WorkerRequest) -> None:
    target = workspace.path(request.args, "target")
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    os.rename(workspace.path(request.args, "source"), target)
    request.answer({})


def remove(workspace: Workspace, request: WorkerRequest, remove_tree: Callable[[str], object]) -> None:
    path = workspace.path(request.args)
    if path == workspace.folder:
        raise Refused("file_refused", "the workspace itself cannot be removed")
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            remove_tree(path)
        else:
            os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        request.answer({"removed": False})
    else:
        request.answer({"removed": True})
