"""A process's output as log events: whole lines, in batches, resumed at the very byte where they stopped.

How far each stream was told of is committed with the lines themselves (`progress`), so a restarted service goes on
without a gap or a double. Lines are cut at `MAX_LINE`; a stage tells at most `MAX_LINES` of a role and says what it
left out (the whole output stays in the container).
"""

from __future__ import annotations

import asyncio
import re
from collections import deque

from sandbox.concurrency import uninterrupted
from sandbox.domain.events import EventType, NewEvent
from sandbox.domain.stages import StageName
from sandbox.engine.base import Guest, OutputChunk, ProcessInfo, Stream
from sandbox.launch.stage import StageJournal

MAX_LINE = 4_096
MAX_LINES = 5_000
BATCH_LINES = 200
BATCH_SECONDS = 0.1
TAIL_LINES = 500
#: How much of a finished process's output is read for its last lines.
LAST_BYTES = 16 * 1024
NOTICE = "… more output than is shown here; the rest is kept in the container"


class LineAssembler:
    """Bytes of one stream of a process into whole lines, knowing where (in the combined log) the last one ended."""

    def __init__(self, told: int) -> None:
        #: Offset (in the combined log) up to which this stream's whole lines were taken.
        self.told = told
        self._partial = b""
        self._cut = False
        #: Where the chunk that began the unfinished line starts.
        self._began = told

    def feed(self, chunk: OutputChunk) -> list[tuple[int, str]]:
        """The lines that are whole now, each with the offset after it."""
        end = chunk.offset + len(chunk.data)
        if end <= self.told:
            return []
        start = chunk.offset if self._partial else max(chunk.offset, self.told)
        *whole, rest = chunk.data[start - chunk.offset :].split(b"\n")
        lines = []
        for piece in whole:
            start += len(piece) + 1
            lines.append((start, _clean(self._partial + piece, cut=self._cut)))
            self._partial, self._cut = b"", False
            self.told = start
        if rest and not self._partial:
            self._began = start
        self._keep(rest)
        return lines

    def told_up_to(self, read_to: int) -> int:
        """Where to resume without losing a line of this stream, when everything up to `read_to` was read."""
        return self._began if self._partial else read_to

    def _keep(self, rest: bytes) -> None:
        room = MAX_LINE - len(self._partial)
        self._cut = self._cut or len(rest) > room
        self._partial += rest[: max(0, room)]

    def last(self, end: int) -> list[str]:
        """What is left without a newline at the end of all output, which is at the offset `end`."""
        left = [_clean(self._partial, cut=self._cut)] if self._partial else []
        self._partial, self._cut, self.told = b"", False, max(self.told, end)
        return left


def _clean(line: bytes, *, cut: bool) -> str:
    """Printable text: carriage returns keep what they leave visible, too long a line is cut and says so."""
    text = line.decode("utf-8", "replace").rstrip("\r").rsplit("\r", 1)[-1].replace("\0", "�")
    if cut or len(text) > MAX_LINE:
        return text[:MAX_LINE] + " … (line cut)"
    return text


class OutputTeller:
    """Tells one process's output as log events of a stage, and keeps its tail for error messages."""

    def __init__(self, guest: Guest, journal: StageJournal, stage: StageName, role: str, process: str) -> None:
        self._guest = guest
        self._journal = journal
        self._stage = stage
        self._role = role
        self._process = process
        before = journal.progress.get(f"output:{role}", {})
        self._streams = {stream: LineAssembler(before.get(stream.value, 0)) for stream in Stream}
        self._lines_told: int = before.get("lines", 0)
        self._pending: list[NewEvent] = []
        self._writing = asyncio.Lock()
        #: Offset after the last byte read.
        self._read_to = 0
        self._has_read = asyncio.Event()
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    async def follow(self) -> None:
        """Tell all output until the process has ended. Cancel to stop sooner; `flush` then tells what was read."""
        reader = asyncio.create_task(self._read())
        flusher = asyncio.create_task(self._flush_often())
        try:
            done, _ = await asyncio.wait({reader, flusher}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            reader.cancel()
            flusher.cancel()
            await asyncio.wait({reader, flusher})
        await self.flush()

    async def reach(self, offset: int) -> None:
        """Wait until a `follow` that is under way has read all output before `offset`."""
        while self._read_to < offset:
            self._has_read.clear()
            await self._has_read.wait()

    async def flush(self) -> None:
        """Commit what was read and is not told yet, with how far that is. What cannot be written is kept for later."""
        # Not broken off by a cancellation: then nobody would know whether the lines are told already.
        await uninterrupted(self._write())

    async def _write(self) -> None:
        async with self._writing:
            pending, self._pending = self._pending, []
            if not pending:
                return
            done = {stream.value: lines.told for stream, lines in self._streams.items()} | {"lines": self._lines_told}
            try:
                await self._journal.write(pending, progress={f"output:{self._role}": done})
            except BaseException:
                self._pending = pending + self._pending
                raise

    async def _read(self) -> None:
        end = start = min(lines.told for lines in self._streams.values())
        async for chunk in self._guest.output(self._process, offset=start, follow=True):
            for _, line in self._streams[chunk.stream].feed(chunk):
                self._add(chunk.stream, line)
            end = self._read_to = chunk.offset + len(chunk.data)
            self._has_read.set()
            if len(self._pending) >= BATCH_LINES:
                await self.flush()
        for stream, lines in self._streams.items():
            for line in lines.last(end):
                self._add(stream, line)

    def _add(self, stream: Stream, line: str) -> None:
        self.tail.append(line)
        self._lines_told += 1
        if self._lines_told > MAX_LINES + 1:
            return
        system = self._lines_told == MAX_LINES + 1
        data = {
            "stage": self._stage.value,
            "role": self._role,
            "stream": "system" if system else stream.value,
            "line": NOTICE if system else line,
        }
        self._pending.append(NewEvent(EventType.LOG, data))

    async def _flush_often(self) -> None:
        while True:
            await asyncio.sleep(BATCH_SECONDS)
            await self.flush()


async def last_lines(guest: Guest, process: ProcessInfo, most: int = 10) -> list[str]:
    """The last lines that a process printed, of both streams as they came; empty ones are left out."""
    start = max(0, process.output_end - LAST_BYTES)
    streams = {stream: LineAssembler(start) for stream in Stream}
    lines: list[str] = []
    async for chunk in guest.output(process.name, offset=start, follow=False):
        lines += [line for _, line in streams[chunk.stream].feed(chunk)]
    for assembler in streams.values():
        lines += assembler.last(process.output_end)
    return [line[:500] for line in lines if line.strip()][-most:]


#: Words by which package managers and interpreters mark the line that says what went wrong.
_MARKS = (
    "error",
    "err!",
    "not found",
    "no matching",
    "no solution",
    "could not",
    "cannot",
    "failed",
    "exception",
    "denied",
)


#: Lines that package managers mark as errors and that say nothing of this one.
_NOISE = re.compile(
    r"npm (?:error|ERR!)(?: \d+| notarget)?"
    r"(?: (?:Clean install a project|Usage:|npm ci|Options:|\[-.*|aliases:.*|Run \"npm help .*"
    r"|A complete log of this run .*|Note that you can also install from a|tarball, folder, http url, or git url\."
    r"|In most cases you or one of your dependencies are requesting|a package version that doesn't exist\.))?"
)


def offending_lines(tail: list[str], most: int = 8) -> str:
    """The lines of a failed command's output that most likely say why: the marked ones, else the last.

    Of too many, the first, which name the cause, and the last, where it ended.
    """
    lines = dict.fromkeys(line.strip() for line in tail)
    said = [line for line in lines if line and not _NOISE.fullmatch(line)]
    marked = [line for line in said if any(mark in line.lower() for mark in _MARKS)]
    chosen = marked or said[-most:]
    if len(chosen) > most:
        chosen = [*chosen[: most // 2], "…", *chosen[-(most // 2) :]]
    return "\n".join(line[:500] for line in chosen)
