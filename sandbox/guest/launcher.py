"""Starts commands through the launcher, a small forked process that has become the sandbox's user.

A fork of the guest agent for each command would cost 2 ms. The launcher has no user to change to, so it can use
posix_spawn (vfork), which takes a fraction of that. It gets a command and three descriptors on a socket, answers with
a pid or an error, and reports on a pipe which of its children have ended (`launcher_process.py`).

It runs as the user, so sandboxed code may signal it. A stopped launcher is killed (`Children.reap`) and a dead one is
replaced at the next command. The commands of a dead launcher go on, as children of the guest agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
from typing import Any

from .children import Child, Children, no_process
from .errors import Refused
from .launcher_process import ENDING, FAILED_CHDIR, ORDER, REPLY, serve_orders
from .marked import VARIABLE, new_mark
from .sockets import send
from .user import User

#: A launcher that does not answer within this time is killed.
REPLY_SECONDS = 10.0
_ENDINGS_AT_ONCE = 256


class Launcher:
    """The guest agent's side. Any number of tasks may start commands; not thread-safe."""

    def __init__(self, children: Children, user: User) -> None:
        self._children = children
        self._user = user
        self._lock = asyncio.Lock()
        self._process: Child | None = None
        self._socket: socket.socket | None = None
        #: One pipe for all successive launchers: what a dead one has reported is read all the same.
        self._endings, self._endings_write = os.pipe()
        os.set_blocking(self._endings, False)
        asyncio.get_running_loop().add_reader(self._endings, self._read_endings)

    async def start(
        self, argv: list[str], *, cwd: str, env: dict[str, str], files: list[int], terminal: str | None = None
    ) -> Child:
        """Start a program as the user in a session of its own.

        `files` are its descriptors 0, 1 and 2, or `terminal` is the path of a terminal for all three. Returns once the
        program runs. Raises Refused: `command_not_found`, `file_not_found` (the folder), `agent_refused`.
        """
        mark = new_mark()
        environment = {**self._user.environment(env), VARIABLE: mark}
        order = {"argv": argv, "cwd": cwd, "env": environment, "terminal": terminal}
        text = json.dumps(order).encode("ascii")
        async with self._lock:
            with self._children.starting():
                reply = await self._order(text, files)
                if reply is None:
                    reply = await self._order(text, files)
                if reply is None or len(reply) < REPLY.size:
                    raise Refused(
                        "agent_refused", f"{argv[0]} was not started: something in the container killed its launcher"
                    )
                pid, step, number = REPLY.unpack(reply)
                if pid:
                    child = Child(pid, mark=mark)
                    self._children.add(child)
                    return child
        raise _failed(step, number, argv[0], cwd)

    def close(self) -> None:
        """End the launcher. Commands that it has started go on."""
        asyncio.get_running_loop().remove_reader(self._endings)
        for fd in (self._endings, self._endings_write):
            os.close(fd)
        if self._socket is not None:
            self._socket.close()

    async def _order(self, text: bytes, files: list[int]) -> bytes | None:
        """The launcher's reply to an order.

        None if the launcher died before it had read the whole order: nothing was started, and a new launcher may be
        asked. Too short if it did not answer, which leaves unknown whether anything was started. A launcher that fails
        is killed.
        """
        process, sock = self._ready()
        reply: bytes | None = b""
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                socket.send_fds(sock, [ORDER.pack(len(text))], files)
                await send(sock, text)
                reply = await _receive_reply(sock)
        except ConnectionError:  # the kernel reports this, and not an end of file, if some of the order was unread
            reply = None
        except OSError:  # a timeout among them
            pass
        finally:
            if reply is None or len(reply) < REPLY.size:
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
                self._process = self._children.fork(lambda: self._run(theirs))
            ours.setblocking(False)
            self._socket = ours
        return self._process, self._socket

    def _run(self, sock: socket.socket) -> int:
        self._user.become({sock.fileno(), self._endings_write})
        return serve_orders(sock, self._endings_write)

    def _read_endings(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._endings, ENDING.size * _ENDINGS_AT_ONCE)
            for pid, status in ENDING.iter_unpack(data):
                self._children.report_end(pid, status)


async def _receive_reply(sock: socket.socket) -> bytes:
    """A reply, shorter if the launcher died."""
    loop: Any = asyncio.get_running_loop()
    reply = b""
    while len(reply) < REPLY.size and (data := await loop.sock_recv(sock, REPLY.size - len(reply))):
        reply += data
    return reply


def _failed(step: int, number: int, program: str, cwd: str) -> Refused:
    if step == FAILED_CHDIR:
        return Refused("file_not_found", f"cannot work in the folder {cwd}: {os.strerror(number)}", 404)
    if number in (errno.EAGAIN, errno.ENOMEM):
        return no_process(OSError(number, os.strerror(number)))
    return Refused("command_not_found", f"cannot run {program}: {os.strerror(number)}", 404)
