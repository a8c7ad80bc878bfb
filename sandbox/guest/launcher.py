"""Starts commands: a small process, forked at the start, that became the sandbox's user for good.

A fork of the agent itself costs 2 ms; the launcher needs no change of user, so it may use posix_spawn (vfork) and takes
a fraction of that. It is single-threaded and does one thing at a time: it gets a command and three descriptors on a
socket, answers with a pid or an error, and says on a pipe which of its children have ended.

It runs as the user, so sandboxed code may signal it, and hurts nobody but itself: a stopped launcher is killed
(`Children.reap`), a dead one is replaced at the next command. The commands of a dead one go on, as children of the
agent.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from .children import Child, Children, User, no_process
from .wire import Refused

_LENGTH = struct.Struct(">I")
#: pid, or 0 and which step failed with which errno.
_REPLY = struct.Struct(">iii")
_ENDING = struct.Struct(">ii")
_FAILED_CHDIR, _FAILED_SPAWN = 1, 2
#: A launcher that does not answer for so long is given up.
PATIENCE_SECONDS = 10.0
DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Launcher:
    """The agent's side of it. Any thread may start commands."""

    def __init__(self, children: Children, user: User) -> None:
        self._children = children
        self._user = user
        self._one_at_a_time = threading.Lock()
        self._process: Child | None = None
        self._socket: socket.socket | None = None
        #: Readable when commands have ended: then call `read_endings`.
        self.endings, self._endings_write = os.pipe()
        os.set_blocking(self.endings, False)

    def start(
        self,
        argv: list[str],
        *,
        cwd: str,
        env: dict[str, str],
        files: list[int],
        terminal: str | None = None,
        on_exit: Callable[[], None] | None = None,
    ) -> Child:
        """Start a program as the user in its own session, with these descriptors as its 0, 1 and 2, or the terminal of
        that path as all three. Returns once it runs. Raises Refused: `command_not_found`, `file_not_found` (the
        folder), `agent_refused`."""
        order = {"argv": argv, "cwd": cwd, "env": self._user.environment(env), "terminal": terminal}
        text = json.dumps(order).encode("ascii")
        with self._one_at_a_time, self._children.starting():
            reply = self._ask(text, files)
            if reply is None:  # no reason to refuse: it has a successor
                reply = self._ask(text, files)
            if reply is None or len(reply) < _REPLY.size:
                raise Refused(
                    "agent_refused", f"{argv[0]} was not started: something in the container killed its launcher"
                )
            pid, step, number = _REPLY.unpack(reply)
            if pid:
                child = Child(pid, on_exit)
                self._children.add(child)
                return child
        raise _failed(step, number, argv[0], cwd)

    def _ask(self, text: bytes, files: list[int]) -> bytes | None:
        """The launcher's reply to an order. None if it had died before it had read all of that, so that nothing was
        started; empty if it did not answer and nobody knows. Whoever does not answer is killed."""
        process, sock = self._ready()
        reply: bytes | None
        try:
            socket.send_fds(sock, [_LENGTH.pack(len(text))], files)
            sock.sendall(text)
            reply = sock.recv(_REPLY.size, socket.MSG_WAITALL)
        except ConnectionError:  # so the kernel says if something was left unread; else it is an end of file
            reply = None
        except OSError:
            reply = b""
        if reply is None or len(reply) < _REPLY.size:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            self._process = None
        return reply

    def _ready(self) -> tuple[Child, socket.socket]:
        """The launcher that runs; a new one if there is none."""
        if self._process is None or self._socket is None or self._process.status is not None:
            if self._socket is not None:
                self._socket.close()
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = self._children.fork(lambda: self._launch(theirs))
            ours.settimeout(PATIENCE_SECONDS)
            self._socket = ours
        return self._process, self._socket

    def _launch(self, sock: socket.socket) -> int:
        self._user.become({sock.fileno(), self._endings_write})
        return serve_orders(sock, self._endings_write)

    def read_endings(self) -> None:
        """Tell the children that have ended."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self.endings, _ENDING.size * 256)
            for pid, status in _ENDING.iter_unpack(data):
                self._children.ended(pid, status)


def _failed(step: int, number: int, program: str, cwd: str) -> Refused:
    if step == _FAILED_CHDIR:
        return Refused("file_not_found", f"cannot work in the folder {cwd}: {os.strerror(number)}", 404)
    if number in (errno.EAGAIN, errno.ENOMEM):
        return no_process(OSError(number, os.strerror(number)))
    return Refused("command_not_found", f"cannot run {program}: {os.strerror(number)}", 404)


def serve_orders(sock: socket.socket, endings: int) -> int:
    """In the launcher's process: start what is asked for until the agent is gone."""
    wake_read, wake_write = os.pipe()
    for fd in (wake_read, wake_write):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    poller.register(wake_read, select.POLLIN)
    while True:
        for fd, _ in poller.poll():
            if fd == wake_read:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
                _report(endings)
            elif not _serve_order(sock):
                return 0


def _report(endings: int) -> None:
    """Say what has ended, and only then take it from the kernel: a launcher killed in between loses no ending."""
    with contextlib.suppress(ChildProcessError):
        while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            status = found.si_status << 8 if found.si_code == os.CLD_EXITED else found.si_status
            os.write(endings, _ENDING.pack(found.si_pid, status))
            os.waitpid(found.si_pid, 0)


def _serve_order(sock: socket.socket) -> bool:
    head, files, _, _ = socket.recv_fds(sock, _LENGTH.size, 3)
    for fd in files:
        os.set_inheritable(fd, False)  # recv_fds ignores the flag for it
    if len(head) < _LENGTH.size:
        return False
    (length,) = _LENGTH.unpack(head)
    order = json.loads(sock.recv(length, socket.MSG_WAITALL))
    try:
        reply = _start(order, files)
    finally:
        for fd in files:
            os.close(fd)
    sock.sendall(_REPLY.pack(*reply))
    return True


def _start(order: dict[str, Any], files: list[int]) -> tuple[int, int, int]:
    try:
        os.chdir(order["cwd"])
    except OSError as error:
        return 0, _FAILED_CHDIR, error.errno or 0
    if order["terminal"]:
        # The leader of a new session that opens a terminal has it as its own from then on.
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, order["terminal"], os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, 0, 2),
        ]
    else:
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(files)]
    argv, env = order["argv"], order["env"]
    try:
        pid = os.posix_spawn(
            find_program(argv[0], env.get("PATH", DEFAULT_PATH)),
            argv,
            env,
            file_actions=actions,
            setsid=True,
            setsigmask=[],
            setsigdef=DEFAULT_SIGNALS,
        )
    except OSError as error:
        return 0, _FAILED_SPAWN, error.errno or 0
    return pid, 0, 0


def find_program(name: str, path: str) -> str:
    """Where the program is; FileNotFoundError, or PermissionError if all that is found cannot be run."""
    if "/" in name:
        return name
    refused = errno.ENOENT
    for folder in path.split(":"):
        candidate = os.path.join(folder or ".", name)
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK):
                return candidate
            refused = errno.EACCES
    raise OSError(refused, os.strerror(refused), name)
