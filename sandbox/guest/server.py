"""The agent's threads.

The main thread (`hub.py`) accepts connections, reads the output of named processes and reaps children; it never blocks
on anything else. A connection is served by a worker thread. Some workers always stand by, started beforehand: a sandbox
that has used up the container's processes cannot keep new connections from being answered.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from .agent import Agent
from .children import become_subreaper
from .options import Options
from .routes import dispatch
from .wire import Connection, HungUp, Refused, refuse_unread

#: Worker threads that stand by.
STANDBY = 6


class Workers:
    """Threads that serve connections."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._waiting: deque[socket.socket] = deque()
        self._changed = threading.Condition()
        self._idle = 0
        for _ in range(STANDBY):
            self._start()

    def _start(self) -> None:
        # At the container's limit of processes: those that stand by, or finish, must do.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._work, daemon=True).start()

    def give(self, sock: socket.socket) -> None:
        """Serve this connection as soon as a thread is free, which is at once but for a crowd at the limit."""
        with self._changed:
            self._waiting.append(sock)
            short = self._idle - len(self._waiting) < STANDBY
            self._changed.notify()
        if short:
            self._start()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while not self._waiting:
                    self._changed.wait()
                self._idle -= 1
                sock = self._waiting.popleft()
            try:
                self._serve(sock)
            except Exception:  # noqa: BLE001 - this connection is lost; at the limit there may be no other thread
                sys.excepthook(*sys.exc_info())
            finally:
                sock.close()
            with self._changed:
                if self._idle >= 2 * STANDBY:
                    return


def serve(options: Options) -> int:
    """Answer on the socket until SIGTERM; then everything that was started is killed."""
    _prepare(options)
    listener = _listen(options.socket)
    become_subreaper()
    agent = Agent(options)
    workers = Workers(lambda sock: _serve_connection(agent, sock))
    agent.exporters.start()
    agent.hub.watch(listener.fileno(), lambda: _accept(listener, workers))
    agent.hub.watch(agent.launcher.endings, agent.launcher.read_endings)
    agent.hub.run(agent.children.reap)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(options.socket)
    agent.children.kill_all()
    return 0


def _prepare(options: Options) -> None:
    os.setgroups([])
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.makedirs(options.spool, mode=0o700, exist_ok=True)
    os.chmod(options.spool, 0o700)
    os.makedirs(options.workspace, mode=0o755, exist_ok=True)
    if os.lstat(options.workspace).st_uid == 0:
        os.lchown(options.workspace, options.user_uid, options.user_uid)


def _listen(path: str) -> socket.socket:
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.chmod(folder, 0o700)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(128)
    listener.setblocking(False)
    return listener


def _accept(listener: socket.socket, workers: Workers) -> None:
    try:
        sock, _ = listener.accept()
    except BlockingIOError:
        return
    except OSError:  # no descriptor or memory for it now; whoever waits is served a little later
        time.sleep(0.05)
        return
    sock.setblocking(True)
    workers.give(sock)


def _serve_connection(agent: Agent, sock: socket.socket) -> None:
    """Answer one request after the other until the other side closes."""
    connection = Connection(sock)
    with contextlib.suppress(HungUp, ConnectionError):
        while True:
            try:
                request = connection.read_request()
            except Refused as error:
                refuse_unread(sock, error)
                return
            if request is None:
                return
            dispatch(agent, request)
            if request.close_after:
                return
