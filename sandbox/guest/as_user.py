"""Functions on files. Each runs in a process that is forked for it and has become the sandbox's user for good, so that
no link or path leads to what the user could not reach. Relative paths are below the workspace.

read {path}                a stream of the file's bytes
write {path, mode?}        raw body -> `FileInfo`; written to a temporary file beside it, which is then renamed
stat {path}                {info: `FileInfo`|null}
list {path, depth}         {files: [`FileInfo`, ...]}
mkdir {path} | move {source, target}     {}
remove {path}              {removed}
put_tar {path} | get_tar {path, exclude?}    see `archive.py`
watch {path}               see `watch.py`
changes | pack_changes | unpack_changes  see `changes.py`
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from functools import partial

from . import files
from .errors import DISK_FULL, HungUp, Refused
from .request import Request
from .sockets import receive, send
from .state import GuestState
from .user import User
from .watch import watch
from .worker import LENGTH, WorkerRequest
from .workspace import Workspace

Function = Callable[[Workspace, WorkerRequest], None]

PIECE = 256 * 1024


def _remove() -> Function:
    from shutil import rmtree

    return partial(files.remove, remove_tree=rmtree)


def _put_tar() -> Function:
    from .archive import put_tar

    return put_tar


def _get_tar() -> Function:
    from .archive import get_tar

    return get_tar


def _changes(name: str) -> Function:
    from . import changes

    function: Function = getattr(changes, name)
    return function


#: How to get each function. Modules that are seldom needed are imported by this, before the fork: once, and by root,
#: who may read the standard library wherever it is installed.
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
    **{name: partial(_changes, name) for name in ("changes", "pack_changes", "unpack_changes")},
}


async def serve_as_user(state: GuestState, request: Request, name: str) -> None:
    """Answer the request in a forked process. Raises HungUp if that fails or the client is gone."""
    function = FUNCTIONS[name]()
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            child = state.children.fork(lambda: _work(state.user, WorkerRequest(theirs, request.args), function))
        ours.setblocking(False)
        feeding = asyncio.create_task(_feed(request, ours))
        try:
            while data := await receive(ours, PIECE):
                request.answered = True
                await request.connection.send(data)
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            _shut_down(ours)  # the worker then ends by itself, whatever it does
    await child.wait()
    if child.status != 0:
        raise HungUp


async def _feed(request: Request, worker: socket.socket) -> None:
    """Send the body to the worker, then wait for the client to close the connection. Ends by shutting down the socket
    to the worker, which ends that."""
    try:
        while data := await request.http.read():
            await send(worker, LENGTH.pack(len(data)), data)
        await send(worker, LENGTH.pack(0))
        with request.connection.hung_up() as hung_up:
            await hung_up
    except (HungUp, Refused, ConnectionError):
        pass
    _shut_down(worker)


def _shut_down(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _work(user: User, request: WorkerRequest, function: Function) -> int:
    """In the forked process. 0 if the request has been answered and its body been read."""
    user.become({request.sock.fileno()})
    try:
        os.chdir(user.workspace)
        function(Workspace(user.workspace), request)
        request.drain()
    except Refused as error:
        return _refuse(request, error)
    except (HungUp, ConnectionError):
        return 1
    except OSError as error:
        return _refuse(request, _refused(error))
    return 0


def _refuse(request: WorkerRequest, error: Refused) -> int:
    if request.answered:
        return 1
    request.drain()
    request.refuse(error)
    return 0


def _refused(error: OSError) -> Refused:
    """The file system's error as one of the guest agent's."""
    message = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Refused("file_not_found", message, 404)
    if error.errno in DISK_FULL:
        return Refused("disk_full", message, 507)
    return Refused("file_refused", message)
