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

import errno
import os
from collections.abc import Callable
from functools import partial

from . import files
from .agent import Agent
from .children import User
from .watch import watch
from .wire import HungUp, Refused, Request
from .workspace import Workspace

Function = Callable[[Workspace, Request], None]


def _remove() -> Function:
    from shutil import rmtree

    return partial(files.remove, remove_tree=rmtree)


def _put_tar() -> Function:
    from .archive import put_tar

    return put_tar


def _get_tar() -> Function:
    from .archive import get_tar

    return get_tar


#: How to come by what answers each. What is seldom needed is imported here, before the fork: once, and as one who may
#: read the standard library wherever it lies.
FUNCTIONS: dict[str, Callable[[], Function]] = {
    "read": lambda: files.read_file,
    "write": lambda: files.write_file,
    "stat": lambda: files.stat_path,
    "list": lambda: files.list_folder,
    "mkdir": lambda: files.make_folder,
    "move": lambda: files.move,
    "remove": _remove,
    "watch": lambda: watch,
    "put_tar": _put_tar,
    "get_tar": _get_tar,
}


def serve_as_user(agent: Agent, request: Request, function: str) -> None:
    """Answer in a process of the user's."""
    work = FUNCTIONS[function]()
    child = agent.children.fork(lambda: _work(agent.user, request, work))
    child.wait()
    child.close()
    request.connection.forget_read_ahead()
    if child.status != 0:
        raise HungUp


def _work(user: User, request: Request, work: Function) -> int:
    """In the forked process. 0 if the connection can take another request."""
    user.become({request.connection.sock.fileno()})
    try:
        os.chdir(user.workspace)
        work(Workspace(user.workspace), request)
    except Refused as error:
        return _refuse(request, error)
    except (HungUp, ConnectionError):
        return 1
    except OSError as error:
        return _refuse(request, _refused(error))
    return 0


def _refuse(request: Request, error: Refused) -> int:
    if request.answered:
        return 1
    request.drain()
    request.refuse(error)
    return 0


def _refused(error: OSError) -> Refused:
    """The error that says what the file system said."""
    words = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Refused("file_not_found", words, 404)
    return Refused("file_refused", words)
