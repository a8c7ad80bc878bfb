"""Files, always touched as the sandbox's user: each function runs in a process forked for it that has become that user
for good, so no link or path can reach what the user could not. Relative paths are below the workspace.

read {path}                a stream of the file's bytes
write {path, mode?}        raw body -> `FileInfo`; a temporary file beside it, renamed
stat {path}                {info: `FileInfo`|null}
list {path, depth}         {files: [`FileInfo`, ...]}
mkdir {path} | move {source, target}     {}
remove {path}              {removed}
put_tar {path} | get_tar {path}          see `archive.py`
watch {path}               see `watch.py`
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .wire import HungUp, Refused, Request, argument, bad_request

if TYPE_CHECKING:
    from .children import User
    from .server import Agent

LIST_LIMIT = 100_000
PIECE = 256 * 1024


def serve_as_user(agent: Agent, request: Request, function: str) -> None:
    """Answer in a process of the user's."""
    work = _function(function)
    child = agent.children.fork(lambda: _work(agent.user, request, work))
    child.wait()
    child.close()
    request.connection.forget_read_ahead()
    if child.status != 0:
        raise HungUp


def _function(name: str) -> Callable[[Files, Request], None]:
    """Imports happen here, before the fork: once, and as one who may read the standard library wherever it lies."""
    if name in ("put_tar", "get_tar"):
        from . import archive

        return {"put_tar": archive.put_tar, "get_tar": archive.get_tar}[name]
    if name == "watch":
        from .watch import watch

        return watch
    if name == "remove":
        import shutil

        return lambda files, request: _remove(files, request, shutil.rmtree)
    return FUNCTIONS[name]


def _work(user: User, request: Request, work: Callable[[Files, Request], None]) -> int:
    """In the forked process. 0 if the connection can take another request."""
    user.become({request.connection.sock.fileno()})
    try:
        os.chdir(user.workspace)
        work(Files(user.workspace), request)
    except Refused as error:
        return _refuse(request, error)
    except (HungUp, ConnectionError):
        return 1
    except OSError as error:
        return _refuse(request, refused(error))
    return 0


def _refuse(request: Request, error: Refused) -> int:
    if request.answered:
        return 1
    request.drain()
    request.refuse(error)
    return 0


def refused(error: OSError) -> Refused:
    """The error that says what the file system said."""
    words = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Refused("file_not_found", words, 404)
    return Refused("file_refused", words)


class Files:
    """Paths as callers give them, and what is told of a file."""

    def __init__(self, workspace: str) -> None:
        self.workspace = workspace

    def path(self, args: dict[str, Any], name: str = "path") -> str:
        given = argument(args, name, str)
        if "\0" in given:
            raise bad_request("a path must not have a NUL in it")
        return os.path.normpath(os.path.join(self.workspace, given))

    def shown(self, path: str) -> str:
        """Relative to the workspace if it is below it."""
        if path == self.workspace:
            return "."
        return path.removeprefix(self.workspace + "/")

    def info(self, path: str, facts: os.stat_result) -> dict[str, Any]:
        """The fields of `FileInfo`."""
        kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
        return {
            "path": self.shown(path),
            "type": kinds.get(stat.S_IFMT(facts.st_mode), "other"),
            "size": facts.st_size,
            "mode": stat.S_IMODE(facts.st_mode),
            "modified_at": facts.st_mtime,
        }


def _read(files: Files, request: Request) -> None:
    path = files.path(request.args)
    # Not blocking: opening a pipe must not wait for somebody to write to it.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Refused("file_refused", f"{path}: not a regular file")
        stream = request.stream()
        while data := file.read(PIECE):
            stream.write(data)
        stream.end()


def _write(files: Files, request: Request) -> None:
    path = files.path(request.args)
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
    request.answer(files.info(path, os.lstat(path)))


def _mode_of(path: str) -> int:
    try:
        facts = os.lstat(path)
    except FileNotFoundError:
        return 0o644
    return stat.S_IMODE(facts.st_mode) if stat.S_ISREG(facts.st_mode) else 0o644


def _stat(files: Files, request: Request) -> None:
    path = files.path(request.args)
    try:
        info = files.info(path, os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        info = None
    request.answer({"info": info})


def _list(files: Files, request: Request) -> None:
    path = files.path(request.args)
    depth = argument(request.args, "depth", int)
    found: list[dict[str, Any]] = []
    _collect(files, path, depth, found)
    request.answer({"files": found})


def _collect(files: Files, folder: str, depth: int, found: list[dict[str, Any]]) -> None:
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        try:
            found.append(files.info(entry.path, entry.stat(follow_symlinks=False)))
        except FileNotFoundError:
            continue
        if len(found) > LIST_LIMIT:
            raise Refused("file_refused", f"{folder}: more than {LIST_LIMIT} entries", 413)
        if depth > 1 and entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                _collect(files, entry.path, depth - 1, found)


def _mkdir(files: Files, request: Request) -> None:
    os.makedirs(files.path(request.args), mode=0o755, exist_ok=True)
    request.answer({})


def _move(files: Files, request: Request) -> None:
    target = files.path(request.args, "target")
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    os.rename(files.path(request.args, "source"), target)
    request.answer({})


def _remove(files: Files, request: Request, remove_tree: Callable[[str], object]) -> None:
    path = files.path(request.args)
    if path == files.workspace:
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


FUNCTIONS: dict[str, Callable[[Files, Request], None]] = {
    "read": _read,
    "write": _write,
    "stat": _stat,
    "list": _list,
    "mkdir": _mkdir,
    "move": _move,
}
