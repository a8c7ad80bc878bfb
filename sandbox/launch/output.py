"""A process's output as log events: whole lines, in batches, resumed at the byte where the previous attempt stopped.

How far each stream has been published is committed in the same transaction as the lines (`progress`), so a restarted
service continues without a gap and without a duplicate. Lines are cut at `MAX_LINE` characters. A stage publishes at
most `MAX_LINES` lines of a role and then one line that says so; the whole output stays in the container.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque

from sandbox.concurrency import uninterrupted
from sandbox.domain.events import EventType, NewEvent
from sandbox.domain.stages import StageName
from sandbox.engine.guest import Guest
from sandbox.engine.guest_data import OutputChunk, ProcessInfo, Stream
from sandbox.launch.stage import StageJournal

MAX_LINE = 4_096
MAX_LINES = 5_000
BATCH_LINES = 200
BATCH_SECONDS = 0.1
TAIL_LINES = 500
#: How much of a finished process's output is read for its last lines.
LAST_BYTES = 16 * 1024
TRUNCATED = "… more output than is shown here; the rest is kept in the container"


_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")


def plain(line: str) -> str:
    """The line without the escape sequences of terminals."""
    return _ESCAPES.sub("", line)


class LineAssembler:
    """Assembles the chunks of one stream of a process into lines.

    Offsets are those of the combined log, in which the chunks of both streams follow each other.
    """

    def __init__(self, position: int) -> None:
        #: Offset up to which this stream's whole lines have been returned.
        self.position = position
        self._partial = b""
        self._cut = False
        #: Offset of the chunk that began the unfinished line.
        self._partial_start = position

    def feed(self, chunk: OutputChunk) -> list[tuple[int, str]]:
        """The lines that this chunk completes, each with the offset after it. Bytes before `position` are ignored."""
        end = chunk.offset + len(chunk.data)
        if end <= self.position:
            return []
        start = chunk.offset if self._partial else max(chunk.offset, self.position)
        *whole, rest = chunk.data[start - chunk.offset :].split(b"\n")
        lines = []
        for piece in whole:
            start += len(piece) + 1
            lines.append((start, _clean(self._partial + piece, cut=self._cut)))
            self._partial, self._cut = b"", False
            self.position = start
        if rest and not self._partial:
            self._partial_start = start
        self._append_partial(rest)
        return lines

    def resume_offset(self, read_to: int) -> int:
        """Where to resume reading without losing a line of this stream, if everything up to `read_to` was read."""
        return self._partial_start if self._partial else read_to

    def _append_partial(self, rest: bytes) -> None:
        room = MAX_LINE - len(self._partial)
        self._cut = self._cut or len(rest) > room
        self._partial += rest[: max(0, room)]

    def finish(self, end: int) -> list[str]:
        """The last line, if it has no newline. `end` is the offset at which all output ends."""
        lines = [_clean(self._partial, cut=self._cut)] if self._partial else []
        self._partial, self._cut, self.position = b"", False, max(self.position, end)
        return lines


def _clean(line: bytes, *, cut: bool) -> str:
    """The line as text: what follows the last carriage return (as a terminal would show it), cut at `MAX_LINE`."""
    text = line.decode("utf-8", "replace").rstrip("\r").rsplit("\r", 1)[-1].replace("\0", "�")
    if cut or len(text) > MAX_LINE:
        return text[:MAX_LINE] + " … (line cut)"
    return text


class OutputFollower:
    """Publishes one process's output as log events of a stage, and keeps its last lines for error messages.

    Not thread-safe. One follower handles one process in one attempt at the stage.
    """

    def __init__(
        self, guest: Guest, journal: StageJournal, stage: StageName, role: str, process: str, *, part: str = ""
    ) -> None:
        """Resumes where the journal's progress says that an earlier attempt stopped. `process` is the process's name
        in the container. If a stage follows several processes of a role, `part` tells them apart in the progress."""
        self._guest = guest
        self._journal = journal
        self._stage = stage
        self._role = role
        self._process = process
        self._key = f"output:{role}" if part == "" else f"output:{role}:{part}"
        published = journal.progress.get(self._key, {})
        self._streams = {stream: LineAssembler(published.get(stream.value, 0)) for stream in Stream}
        self._line_count: int = published.get("lines", 0)
        self._pending: list[NewEvent] = []
        self._writing = asyncio.Lock()
        #: Offset after the last byte read.
        self._read_to = 0
        self._has_read = asyncio.Event()
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    async def follow(self) -> None:
        """Publish all output until the process has ended. Cancel to stop sooner, then call `flush`."""
        reader = asyncio.create_task(self._read())
        flusher = asyncio.create_task(self._flush_periodically())
        try:
            done, _ = await asyncio.wait({reader, flusher}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            reader.cancel()
            flusher.cancel()
            await asyncio.wait({reader, flusher})
        await self.flush()

    async def wait_until_read(self, offset: int) -> None:
        """Wait until a running `follow` has read all output before `offset`."""
        while self._read_to < offset:
            self._has_read.clear()
            await self._has_read.wait()

    async def flush(self) -> None:
        """Commit the lines that were read and not yet published, with the new position.

        Lines that cannot be written stay pending; the error is raised.
        """
        # A cancellation must not interrupt the write: it would be unknown whether the lines were committed.
        await uninterrupted(self._write())

    async def _write(self) -> None:
        async with self._writing:
            pending, self._pending = self._pending, []
            if not pending:
                return
            published = {stream.value: lines.position for stream, lines in self._streams.items()}
            published["lines"] = self._line_count
            try:
                await self._journal.write(pending, progress={self._key: published})
            except BaseException:
                self._pending = pending + self._pending
                raise

    async def _read(self) -> None:
        end = start = min(lines.position for lines in self._streams.values())
        async for chunk in self._guest.output(self._process, offset=start, follow=True):
            for _, line in self._streams[chunk.stream].feed(chunk):
                self._add(chunk.stream, line)
            end = self._read_to = chunk.offset + len(chunk.data)
            self._has_read.set()
            if len(self._pending) >= BATCH_LINES:
                await self.flush()
        for stream, lines in self._streams.items():
            for line in lines.finish(end):
                self._add(stream, line)

    def _add(self, stream: Stream, line: str) -> None:
        self.tail.append(line)
        self._line_count += 1
        if self._line_count > MAX_LINES + 1:
            return
        truncated = self._line_count == MAX_LINES + 1
        data = {
            "stage": self._stage.value,
            "role": self._role,
            "stream": "system" if truncated else stream.value,
            "line": TRUNCATED if truncated else line,
        }
        self._pending.append(NewEvent(EventType.LOG, data))

    async def _flush_periodically(self) -> None:
        while True:
            await asyncio.sleep(BATCH_SECONDS)
            await self.flush()


async def last_lines(guest: Guest, process: ProcessInfo, limit: int = 10) -> list[str]:
    """The last non-empty lines that a process printed, of both streams in order. Each is cut at 500 characters."""
    start = max(0, process.output_end - LAST_BYTES)
    streams = {stream: LineAssembler(start) for stream in Stream}
    lines: list[str] = []
    async for chunk in guest.output(process.name, offset=start, follow=False):
        lines += [line for _, line in streams[chunk.stream].feed(chunk)]
    for assembler in streams.values():
        lines += assembler.finish(process.output_end)
    return [line[:500] for line in lines if line.strip()][-limit:]
