"""The launcher's own process: starts commands for the guest agent and reports which of them have ended.

It is single-threaded, does one thing at a time, and runs no event loop: besides orders it only waits for SIGCHLD.
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
from typing import Any

#: Length of the JSON that follows; three descriptors come with it.
ORDER = struct.Struct(">I")
#: The pid, or 0, the step that failed and its errno.
REPLY = struct.Struct(">iii")
#: Pid and wait status of a command that has ended.
ENDING = struct.Struct(">ii")
FAILED_CHDIR, FAILED_SPAWN = 1, 2
DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def serve_orders(sock: socket.socket, endings: int) -> int:
    """Start what is ordered on the socket until the guest agent closes it; write endings to the pipe `endings`."""
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
                _report_endings(endings)
            elif not _serve_order(sock):
                return 0


def _report_endings(endings: int) -> None:
    """Report each ending before reaping it: if this process is killed in between, the guest agent inherits the zombie,
    and no ending is lost."""
    with contextlib.suppress(ChildProcessError):
        while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            status = found.si_status << 8 if found.si_code == os.CLD_EXITED else found.si_status
            os.write(endings, ENDING.pack(found.si_pid, status))
            os.waitpid(found.si_pid, 0)


def _serve_order(sock: socket.socket) -> bool:
    """False at the end of the socket."""
    head, files, _, _ = socket.recv_fds(sock, ORDER.size, 3)
    for fd in files:
        os.set_inheritable(fd, False)  # recv_fds ignores the flag for it
    if len(head) < ORDER.size:
        return False
    (length,) = ORDER.unpack(head)
    order = json.loads(sock.recv(length, socket.MSG_WAITALL))
    try:
        reply = _start(order, files)
    finally:
        for fd in files:
            os.close(fd)
    sock.sendall(REPLY.pack(*reply))
    return True


def _start(order: dict[str, Any], files: list[int]) -> tuple[int, int, int]:
    try:
        os.chdir(order["cwd"])
    except OSError as error:
        return 0, FAILED_CHDIR, error.errno or 0
    if order["terminal"]:
        # The leader of a new session that opens a terminal gets it as its controlling terminal.
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
        return 0, FAILED_SPAWN, error.errno or 0
    return pid, 0, 0


def find_program(name: str, path: str) -> str:
    """The program's path, searched in `path` like a shell does. Raises FileNotFoundError, or PermissionError if every
    file of that name cannot be executed."""
    if "/" in name:
        return name
    failure = errno.ENOENT
    for folder in path.split(":"):
        candidate = os.path.join(folder or ".", name)
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK):
                return candidate
            failure = errno.EACCES
    raise OSError(failure, os.strerror(failure), name)
