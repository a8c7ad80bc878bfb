"""A terminal on a connection.

After 101 both sides send frames: kind (1 byte), length (4), payload. Kinds: 0 terminal bytes, both ways; 1 from the
client, columns (2) and rows (2); 2 from the agent, the exit code (4), the last one. The client closing the connection
is a terminal that is closed: its processes get SIGHUP.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import termios

from .agent import Agent
from .children import Child, outcome
from .run import shell, to_argv
from .wire import HungUp, Request, argument, bad_request

FRAME = struct.Struct(">BI")
SIZE = struct.Struct(">HH")
EXIT = struct.Struct(">i")
DATA, RESIZE, ENDED = 0, 1, 2
PIECE = 64 * 1024
FRAME_LIMIT = 1024 * 1024
#: What still runs so long after SIGHUP is killed.
HANGUP_SECONDS = 2.0


def serve_terminal(
    agent: Agent, request: Request, command: str | list[str] | None, cwd: str, env: dict[str, str]
) -> None:
    """Run the command, or a login shell, on a new terminal until it ends or the client closes."""
    columns, rows = argument(request.args, "columns", int), argument(request.args, "rows", int)
    argv = [shell(), "-l"] if command is None else to_argv(command)
    master, slave = os.openpty()
    try:
        _resize(master, columns, rows)
        os.fchown(slave, agent.user.uid, agent.user.gid)
        environment = {"TERM": "xterm-256color", **env}
        child = agent.launcher.start(argv, cwd=cwd, env=environment, files=[], terminal=os.ttyname(slave))
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    try:
        request.switch(101)
        Terminal(request, master, child).run()
    finally:
        agent.children.signal_group(child, signal.SIGHUP)
        os.close(master)
        if not child.wait(HANGUP_SECONDS):
            agent.children.signal_group(child, signal.SIGKILL)
        child.close()


def _resize(master: int, columns: int, rows: int) -> None:
    if not (0 < columns < 65_536 and 0 < rows < 65_536):
        raise bad_request("a terminal has from 1 to 65,535 columns and rows")
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Terminal:
    """The bytes between a connection and a terminal."""

    def __init__(self, request: Request, master: int, child: Child) -> None:
        self._sock: socket.socket = request.connection.sock
        self._received = bytearray(request.connection.take_read_ahead())
        self._typed = bytearray()
        self._master = master
        self._child = child
        self._open = True
        os.set_blocking(master, False)

    def run(self) -> None:
        poller = select.poll()
        poller.register(self._child.done_fd, select.POLLIN)
        self._take_frames()
        while True:
            if self._open:
                poller.register(self._master, select.POLLIN | (select.POLLOUT if self._typed else 0))
            # A client that types more than the program reads waits.
            poller.register(self._sock, select.POLLIN if len(self._typed) < FRAME_LIMIT else 0)
            ready = dict(poller.poll())
            if self._sock.fileno() in ready and not self._receive():
                return
            if ready.get(self._master, 0) & select.POLLOUT:
                self._type()
            if ready.get(self._master, 0) & (select.POLLIN | select.POLLHUP) and not self._show():
                # Every program has closed the terminal; the first may run on without it.
                poller.unregister(self._master)
                self._open = False
            if self._child.done_fd in ready:
                while self._show():
                    pass
                code, _ = outcome(self._child.status or 0)
                self._sock.sendall(FRAME.pack(ENDED, EXIT.size) + EXIT.pack(code))
                return

    def _receive(self) -> bool:
        data = self._sock.recv(PIECE)
        self._received += data
        self._take_frames()
        return bool(data)

    def _take_frames(self) -> None:
        while len(self._received) >= FRAME.size:
            kind, length = FRAME.unpack_from(self._received)
            if length > FRAME_LIMIT or kind not in (DATA, RESIZE) or (kind == RESIZE and length != SIZE.size):
                raise HungUp
            end = FRAME.size + length
            if len(self._received) < end:
                return
            payload = bytes(self._received[FRAME.size : end])
            del self._received[:end]
            if kind == DATA:
                self._typed += payload
            else:
                columns, rows = SIZE.unpack(payload)
                _resize(self._master, columns, rows)

    def _type(self) -> None:
        try:
            del self._typed[: os.write(self._master, self._typed[:PIECE])]
        except BlockingIOError:
            return
        except OSError:
            self._typed.clear()

    def _show(self) -> bool:
        """Send on what was printed; False if nothing was."""
        try:
            data = os.read(self._master, PIECE)
        except OSError:  # nothing there, or the last program on the terminal has closed it
            return False
        if data:
            self._sock.sendall(FRAME.pack(DATA, len(data)) + data)
        return bool(data)
