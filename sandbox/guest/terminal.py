"""A terminal on a connection.

After 101 both sides send frames: kind (1 byte), length (4), payload. Kinds: 0 terminal bytes, both ways; 1 from the
client, columns (2) and rows (2); 2 from the guest agent, the exit code (4), which is the last frame. When the client
closes the connection the terminal is closed, and its processes get SIGHUP.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import termios

from .children import Child, outcome
from .command import shell, to_argv
from .errors import HungUp, bad_request
from .http1 import Connection
from .request import Request, argument
from .sockets import readable
from .state import GuestState

FRAME = struct.Struct(">BI")
SIZE = struct.Struct(">HH")
EXIT = struct.Struct(">i")
DATA, RESIZE, ENDED = 0, 1, 2
PIECE = 64 * 1024
#: Longest frame of the client. When this much typed input is waiting for the program, the client has to wait.
FRAME_LIMIT = 1024 * 1024
#: What still runs this long after SIGHUP is killed.
HANGUP_SECONDS = 2.0


async def serve_terminal(
    state: GuestState, request: Request, command: str | list[str] | None, cwd: str, env: dict[str, str]
) -> None:
    """Run the command, or an interactive shell, on a new terminal until it ends or the client closes the connection."""
    columns, rows = argument(request.args, "columns", int), argument(request.args, "rows", int)
    # A login shell would set PATH anew.
    argv = [shell(), "-i"] if command is None else to_argv(command)
    master, slave = os.openpty()
    try:
        _resize(master, columns, rows)
        os.fchown(slave, state.user.uid, state.user.gid)
        environment = {"TERM": "xterm-256color", **env}
        child = await state.launcher.start(argv, cwd=cwd, env=environment, files=[], terminal=os.ttyname(slave))
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    try:
        await request.switch(101)
        await Terminal(request.connection, master, child).run()
    finally:
        state.children.signal_group(child, signal.SIGHUP)
        os.close(master)
        if not await child.wait(HANGUP_SECONDS):
            state.children.signal_group(child, signal.SIGKILL)


def _resize(master: int, columns: int, rows: int) -> None:
    if not (0 < columns < 65_536 and 0 < rows < 65_536):
        raise bad_request("a terminal has from 1 to 65,535 columns and rows")
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Terminal:
    """Copies bytes between a connection and a terminal."""

    def __init__(self, connection: Connection, master: int, child: Child) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._master = master
        self._child = child
        self._typed = bytearray()
        #: Set while little enough typed input is waiting for the program.
        self._room = asyncio.Event()
        self._room.set()
        os.set_blocking(master, False)

    async def run(self) -> None:
        """Return when the command has ended, or the client has closed the connection."""
        output = self._loop.create_task(self._send_output())
        frames = self._loop.create_task(self._receive_frames())
        try:
            done, _ = await asyncio.wait({output, frames}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (output, frames):
                task.cancel()
            await asyncio.gather(output, frames, return_exceptions=True)
            self._loop.remove_writer(self._master)

    async def _send_output(self) -> None:
        """Send what is printed until the command has ended, and then its exit code."""
        while True:
            ended = self._child.ended.done()
            try:
                data = os.read(self._master, PIECE)
            except BlockingIOError:
                if ended:
                    break
                with readable(self._master) as ready:
                    await asyncio.wait({ready, self._child.ended}, return_when=asyncio.FIRST_COMPLETED)
                continue
            except OSError:  # every program has closed the terminal; the first of them may run on without it
                await self._child.wait()
                break
            await self._connection.send(FRAME.pack(DATA, len(data)), data)
        code, _ = outcome(self._child.status or 0)
        await self._connection.send(FRAME.pack(ENDED, EXIT.size), EXIT.pack(code))

    async def _receive_frames(self) -> None:
        """Apply the client's frames. Raises HungUp when it closes the connection."""
        while True:
            kind, length = FRAME.unpack(await self._connection.read_exactly(FRAME.size))
            if length > FRAME_LIMIT or kind not in (DATA, RESIZE) or (kind == RESIZE and length != SIZE.size):
                raise HungUp
            payload = await self._connection.read_exactly(length)
            if kind == RESIZE:
                _resize(self._master, *SIZE.unpack(payload))
            elif payload:
                self._typed += payload
                self._loop.add_writer(self._master, self._write_typed)
                if len(self._typed) >= FRAME_LIMIT:
                    self._room.clear()
                await self._room.wait()

    def _write_typed(self) -> None:
        try:
            del self._typed[: os.write(self._master, self._typed[:PIECE])]
        except BlockingIOError:
            return
        except OSError:  # no program has the terminal open
            self._typed.clear()
        if not self._typed:
            self._loop.remove_writer(self._master)
        if len(self._typed) < FRAME_LIMIT:
            self._room.set()
