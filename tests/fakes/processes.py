"""Scripted processes of the fake guest agent: what they print, when they end, and the ports they listen on."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from sandbox.engine.guest_data import OutputChunk, ProcessInfo, Stream
from tests.fakes.errors import guest_error

#: Answers one connection to a port. The connection is closed when it returns.
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_pids = itertools.count(100)


@dataclass(frozen=True)
class Script:
    """What a process does when it is started.

    It prints `output` and `errors` at once, listens on the ports of `listens` after `opens_after` seconds, and ends
    with `exit_code` after `delay` seconds. With `exit_code` None it runs until it is signalled. `reads` makes it print
    what is written to its standard input, and end at the end of that.
    """

    output: bytes = b""
    errors: bytes = b""
    exit_code: int | None = 0
    delay: float = 0.0
    out_of_memory: bool = False
    listens: Mapping[int, Handler] = field(default_factory=dict)
    opens_after: float = 0.0
    reads: bool = False


def http_server(status: int = 200, body: bytes = b"ok") -> Handler:
    """Answers every connection's first request with that status."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d Scripted\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
        await writer.drain()

    return handle


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends everything back that it receives."""
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


def app(
    port: int, handler: Handler | None = None, *, output: bytes = b"listening\n", opens_after: float = 0.0
) -> Script:
    """An app that serves a port until it is killed."""
    return Script(output, exit_code=None, listens={port: handler or http_server()}, opens_after=opens_after)


class FakeProcess:
    """One process with its output. Not thread-safe; it must be made while an event loop runs."""

    def __init__(self, name: str, command: str | list[str], script: Script, env: dict[str, str]) -> None:
        self.name = name
        self.env = env
        self.script = script
        self.pid = next(_pids)
        self._command = command if isinstance(command, str) else " ".join(command)
        self._started_at = time.time()
        self._ended_at: float | None = None
        self._exit_code: int | None = None
        self._signal: int | None = None
        self._chunks: list[OutputChunk] = []
        self._changed = asyncio.Event()
        self._stdin_open = True
        self._ports: dict[int, Handler] = {}
        self._run = asyncio.create_task(self._follow_script(), name=f"fake-{name}")

    @property
    def running(self) -> bool:
        return self._ended_at is None

    @property
    def ports(self) -> dict[int, Handler]:
        """The ports it listens on now."""
        return self._ports if self.running else {}

    @property
    def info(self) -> ProcessInfo:
        return ProcessInfo(
            name=self.name,
            pid=self.pid,
            command=self._command,
            running=self.running,
            exit_code=self._exit_code,
            signal=self._signal,
            started_at=self._started_at,
            ended_at=self._ended_at,
            output_end=self._end_of_output,
            out_of_memory=self.script.out_of_memory and not self.running,
        )

    def printed(self, stream: Stream) -> bytes:
        return b"".join(chunk.data for chunk in self._chunks if chunk.stream is stream)

    def write(self, data: bytes, stream: Stream = Stream.STDOUT) -> None:
        """Print something more."""
        if data:
            self._chunks.append(OutputChunk(stream, self._end_of_output, data, time.time()))
            self._notify()

    def write_stdin(self, data: bytes, *, close: bool) -> None:
        if not self.running or not self._stdin_open:
            raise guest_error("agent_refused", f"the input of {self.name} is closed")
        self._stdin_open = not close
        if self.script.reads:
            self.write(data)
            if close:
                self.end(self.script.exit_code or 0)

    def end(self, exit_code: int, number: int | None = None) -> None:
        """End it, as its own program or a signal would; nothing if it has ended."""
        if self.running:
            self._ended_at = time.time()
            self._exit_code, self._signal = exit_code, number
            self._run.cancel()
            self._notify()

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.end(128 + number, number)

    async def wait(self) -> None:
        """Return once it has ended."""
        while self.running:
            await self._changed.wait()

    async def output(self, offset: int, *, follow: bool) -> AsyncIterator[OutputChunk]:
        """Its output from `offset`, cut where a chunk begins before that; with `follow` until it has ended."""
        position = 0
        while True:
            changed = self._changed
            while position < len(self._chunks):
                chunk = self._chunks[position]
                position += 1
                skip = max(0, offset - chunk.offset)
                if skip < len(chunk.data):
                    yield OutputChunk(chunk.stream, chunk.offset + skip, chunk.data[skip:], chunk.time)
            if not follow or not self.running:
                if position == len(self._chunks):
                    return
                continue
            await changed.wait()

    @property
    def _end_of_output(self) -> int:
        return self._chunks[-1].offset + len(self._chunks[-1].data) if self._chunks else 0

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _follow_script(self) -> None:
        script = self.script
        self.write(script.output)
        self.write(script.errors, Stream.STDERR)
        await asyncio.sleep(script.opens_after)
        self._ports = dict(script.listens)
        if script.exit_code is None or script.reads:
            await asyncio.Event().wait()
        await asyncio.sleep(script.delay)
        self.end(script.exit_code or 0, signal.SIGKILL if script.out_of_memory else None)


class Connections:
    """The connections to ports inside the fake container, each served by a task in this process."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, handler: Handler) -> socket.socket:
        """A connected, non-blocking socket whose other end the handler serves."""
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        task = asyncio.create_task(self._serve(far, handler))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return near

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, sock: socket.socket, handler: Handler) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
