"""Terminals.

After 101 both sides send frames: kind (1 byte), length (4), payload. Kinds: 0 terminal bytes, both ways; 1 from the
client, columns (2) and rows (2); 2 from the guest agent, the exit code (4), which is its last frame; 3 from the client,
hang up; 4 from the guest agent, another connection has the terminal now, which is its last frame as well.

A terminal without a name ends with its connection: its processes get SIGHUP. One with a name is kept for a while when
its connection is lost, and goes on running. A client that names it again gets it back, with what was printed since the
position up to which that client has received the output. The header `Sandbox-Terminal-Position` of the 101 is where the
output begins that is sent: less than what was asked for if the terminal is a new one, more if it has printed so much
meanwhile that the oldest was dropped.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Callable

from .children import Child, Children, outcome
from .errors import HungUp, bad_request
from .http1 import Connection
from .launcher import Launcher
from .request import Request
from .sockets import readable

FRAME = struct.Struct(">BI")
SIZE = struct.Struct(">HH")
EXIT = struct.Struct(">i")
DATA, RESIZE, ENDED, HANG_UP, TAKEN = range(5)
POSITION = "sandbox-terminal-position"
PIECE = 64 * 1024
#: Longest frame of the client. When this much typed input is waiting for the program, the client has to wait.
FRAME_LIMIT = 1024 * 1024
#: How much of the output is kept for a client that connects again. When this much is waiting for a client that is
#: connected, the program has to wait.
OUTPUT_LIMIT = 192 * 1024
#: What still runs this long after SIGHUP is killed.
HANGUP_SECONDS = 2.0


async def start_terminal(
    children: Children,
    launcher: Launcher,
    uid: int,
    argv: list[str],
    size: tuple[int, int],
    cwd: str,
    env: dict[str, str],
) -> Terminal:
    """Run a command on a new terminal of `size` columns and rows, which belongs to the user `uid`."""
    master, slave = os.openpty()
    try:
        _resize(master, *size)
        os.fchown(slave, uid, uid)
        environment = {"TERM": "xterm-256color", **env}
        child = await launcher.start(argv, cwd=cwd, env=environment, files=[], terminal=os.ttyname(slave))
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    return Terminal(children, master, child)


def _resize(master: int, columns: int, rows: int) -> None:
    if not (0 < columns < 65_536 and 0 < rows < 65_536):
        raise bad_request("a terminal has from 1 to 65,535 columns and rows")
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Terminal:
    """A program on a terminal, the last part of what it has printed, and the connection that shows it, if any."""

    def __init__(self, children: Children, master: int, child: Child) -> None:
        self._loop = asyncio.get_running_loop()
        self._children = children
        self._master = master
        self._child = child
        #: How long the terminal is kept without a connection.
        self.kept_seconds = 0.0
        #: Called when the terminal begins to be closed.
        self.on_close: Callable[[], object] = lambda: None
        #: The last part of the output, and the position of its first byte in the whole of it.
        self._output = bytearray()
        self._start = 0
        #: The position up to which the connected client has been sent the output.
        self._sent = 0
        #: Set when there is more output, or less of it is waiting, or the program or a connection has ended.
        self._changed = asyncio.Event()
        #: Everything has been read that the program printed, and it has ended.
        self._finished = False
        self._typed = bytearray()
        #: Set while little enough typed input is waiting for the program.
        self._room = asyncio.Event()
        self._room.set()
        #: Done when another connection takes the terminal over; None while there is no connection.
        self._taken: asyncio.Future[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        os.set_blocking(master, False)
        self._reading = self._loop.create_task(self._read_output())

    async def serve(self, request: Request, after: int) -> None:
        """Show the terminal on a connection, and no longer on any other, until the command has ended, the client hangs
        up, or another connection takes over. Raises HungUp if the connection is lost."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._taken is not None:
            self._taken.set_result(None)
        taken = self._taken = self._loop.create_future()
        # What is printed from here on stays until it has been sent.
        self._sent = after if self._start <= after <= self._end else self._start
        self._changed.set()
        try:
            await request.switch(101, {POSITION: str(self._sent)})
            await self._copy(request.connection, taken)
        finally:
            if self._taken is taken:
                self._taken = None
                self._changed.set()
        if not taken.done():
            self.expire()

    async def _copy(self, connection: Connection, taken: asyncio.Future[None]) -> None:
        output = self._loop.create_task(self._send_output(connection, self._sent, taken))
        frames = self._loop.create_task(self._receive_frames(connection))
        try:
            done, _ = await asyncio.wait({output, frames}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (output, frames):
                task.cancel()
            await asyncio.gather(output, frames, return_exceptions=True)

    def left(self) -> None:
        """A connection has ended. Unless there is another, the terminal is closed after `kept_seconds`."""
        if self._taken is None and self._closing is None:
            self._expiry = self._loop.call_later(self.kept_seconds, self.expire)

    @property
    def expires(self) -> float | None:
        """When the terminal will be closed, as a time of the event loop; None while there is a connection."""
        return None if self._expiry is None else self._expiry.when()

    def expire(self) -> None:
        """Begin to close the terminal."""
        if self._closing is None:
            self._closing = self._loop.create_task(self._hang_up())
            self.on_close()

    async def close(self) -> None:
        """Hang up: what runs on the terminal gets SIGHUP, and what ignores it is killed."""
        self.expire()
        if self._closing is not None:
            await self._closing

    async def _hang_up(self) -> None:
        self._children.signal_group(self._child, signal.SIGHUP)
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._loop.remove_writer(self._master)
        os.close(self._master)
        if not await self._child.wait(HANGUP_SECONDS):
            self._children.signal_group(self._child, signal.SIGKILL)

    @property
    def _end(self) -> int:
        return self._start + len(self._output)

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _read_output(self) -> None:
        """Take what is printed until the command has ended. While much of it waits for a client, the program waits."""
        while True:
            while self._taken is not None and self._end - self._sent >= OUTPUT_LIMIT:
                await self._wait_for_change()
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
            self._output += data
            if (surplus := len(self._output) - OUTPUT_LIMIT - PIECE) > 0:
                del self._output[:surplus]
                self._start += surplus
            self._changed.set()
            # A program that prints without a pause must not keep other tasks from running.
            await asyncio.sleep(0)
        self._finished = True
        self._changed.set()

    async def _send_output(self, connection: Connection, position: int, taken: asyncio.Future[None]) -> None:
        """Send the output from a position until the command has ended, and then its exit code."""
        while not taken.done():
            offset = position - self._start
            if data := bytes(self._output[offset : offset + PIECE]):
                await connection.send(FRAME.pack(DATA, len(data)), data)
                position += len(data)
                if not taken.done():
                    self._sent = position
                    self._changed.set()
            elif self._finished:
                code, _ = outcome(self._child.status or 0)
                await connection.send(FRAME.pack(ENDED, EXIT.size), EXIT.pack(code))
                return
            else:
                await self._wait_for_change()
        await connection.send(FRAME.pack(TAKEN, 0))

    async def _receive_frames(self, connection: Connection) -> None:
        """Apply the client's frames until it hangs up. Raises HungUp when it closes the connection."""
        while True:
            kind, length = FRAME.unpack(await connection.read_exactly(FRAME.size))
            if length > FRAME_LIMIT or kind not in (DATA, RESIZE, HANG_UP) or (kind == RESIZE and length != SIZE.size):
                raise HungUp
            payload = await connection.read_exactly(length)
            if kind == HANG_UP:
                return
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
