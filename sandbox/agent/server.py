"""The agent's threads.

The main thread (`Hub`) accepts connections, reads the output of named processes and reaps children; it never blocks on
anything else. A connection is served by a worker thread. Some workers always stand by, started beforehand: a sandbox
that has used up the container's processes cannot keep new connections from being answered.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from .children import Children, User, become_subreaper
from .launcher import Launcher
from .processes import Processes
from .wire import Connection, HungUp, Refused, refuse_unread

if TYPE_CHECKING:
    from .main import Options

#: Worker threads that stand by.
STANDBY = 6
DRAIN_PIECE = 64 * 1024


class Hub:
    """The main thread's loop."""

    def __init__(self) -> None:
        self._poller = select.poll()
        self._ready: dict[int, Callable[[], object]] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        self._running = True

    def watch(self, fd: int, ready: Callable[[], object]) -> None:
        """Call `ready` whenever there is something to read. On the loop's thread only, like `forget`."""
        self._ready[fd] = ready
        self._poller.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        if self._ready.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def call(self, function: Callable[[], None]) -> None:
        """Call it on the loop's thread, soon. From any thread."""
        self._calls.append(function)
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def drain(self, fd: int) -> None:
        """Read a pipe to its end and throw it away, so that what still writes to it is neither stopped nor killed."""
        os.set_blocking(fd, False)
        self.call(lambda: self.watch(fd, lambda: self._discard(fd)))

    def _discard(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            if not os.read(fd, DRAIN_PIECE):
                self.forget(fd)
                os.close(fd)

    def stop(self) -> None:
        self._running = False

    def run(self, on_child: Callable[[], None]) -> None:
        """Loop until `stop`. `on_child` is called when children may have ended."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self.stop())
        signal.signal(signal.SIGINT, lambda *_: self.stop())
        on_child()
        while self._running:
            for fd, _ in self._poller.poll():
                if fd == self._wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(fd, 4096)
                    while self._calls:
                        self._calls.popleft()()
                    on_child()
                elif ready := self._ready.get(fd):
                    ready()

    def listen_for_wakeups(self) -> None:
        self._poller.register(self._wake_read, select.POLLIN)


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


class Agent:
    """What the functions of `routes.py` work on."""

    def __init__(self, options: Options) -> None:
        self.hub = Hub()
        self.children = Children(self.hub.call)
        self.user = User(options.user_uid, options.workspace)
        self.launcher = Launcher(self.children, self.user)
        self.processes = Processes(self.hub, self.launcher, options.spool)


def serve(options: Options) -> int:
    """Answer on the socket until SIGTERM; then everything that was started is killed."""
    _prepare(options)
    listener = _listen(options.socket)
    become_subreaper()
    agent = Agent(options)
    workers = Workers(lambda sock: _serve_connection(agent, sock))
    agent.hub.listen_for_wakeups()
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
    from .routes import dispatch

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
