"""The guest agent's process: one thread with one event loop.

All connections, the output of named processes and the reaping of children are served by this loop, so the guest agent
needs no new thread or process to answer. It goes on answering when a sandbox has used up the container's processes.
Work that must block runs in forked processes (`as_user.py`, `launcher.py`); only host names are resolved in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket

from .account import take_account
from .children import become_subreaper
from .errors import HungUp, Refused
from .http1 import Connection
from .options import Options
from .request import Request, encode_answer, read_arguments
from .routes import dispatch
from .sockets import accept_connections
from .state import GuestState

_BACKLOG = 128


def serve(options: Options) -> int:
    """Answer on the socket until SIGTERM, then kill everything that was started. The exit status."""
    options = _prepare(options)
    listener = _listen(options.socket)
    become_subreaper()
    asyncio.run(_serve(options, listener))
    return 0


async def _serve(options: Options, listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    state = GuestState(options)
    loop.add_signal_handler(signal.SIGCHLD, state.children.reap)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    otlp = loop.create_task(state.otlp.serve())
    usage = loop.create_task(state.usage.measure())
    control = loop.create_task(accept_connections(listener, lambda sock: _serve_connection(state, sock)))
    await stopped.wait()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(options.socket)
    await state.children.kill_all()
    for task in (otlp, usage, control):
        task.cancel()


def _prepare(options: Options) -> Options:
    """Make the folders, and return the options with the user that is in force."""
    os.setgroups([])
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.makedirs(options.spool, mode=0o700, exist_ok=True)
    os.chmod(options.spool, 0o700)
    os.makedirs(options.workspace, mode=0o755, exist_ok=True)
    if options.account_uid is not None:
        return options._replace(user_uid=take_account(options.account_uid, options.workspace))
    if os.lstat(options.workspace).st_uid == 0:
        os.lchown(options.workspace, options.user_uid, options.user_uid)
    return options


def _listen(path: str) -> socket.socket:
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.chmod(folder, 0o700)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


async def _serve_connection(state: GuestState, sock: socket.socket) -> None:
    """Answer one request after the other until the peer closes the connection."""
    connection = Connection(sock)
    with contextlib.suppress(HungUp, ConnectionError):
        close = False
        while not close:
            try:
                http = await connection.read_request()
                if http is None:
                    return
                request = Request(http, await read_arguments(http))
            except Refused as error:
                await connection.send(*encode_answer(error.document(), status=error.status))
                return
            await dispatch(state, request)
            close = http.close_after
