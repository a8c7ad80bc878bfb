"""The stored output of a named process: one log of both streams in the order in which it was read, of bounded size.

Offsets count bytes of the combined log from the start of the process. The log consists of segments, each a file; when
it holds more than `limit` bytes the oldest segment is deleted. Of each byte it is known when it was read. The files
are unlinked as soon as they are open, so that only root can read them and they do not outlive the guest agent.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable

SEGMENT = 4 * 1024 * 1024
LIMIT = 32 * 1024 * 1024
#: A segment also ends after this many changes between the streams, or of the time, because they are held in memory.
RUNS = 65_536

_names = itertools.count()


class _Segment:
    """One file, closed when nothing refers to it any more.

    `runs` holds `offset * 2 + stream` for the beginning of each stretch of bytes of one stream, `marks` the offset of
    the beginning of each stretch that was read in one millisecond, and `times` that millisecond since 1970.
    """

    #: -1 until the file is open.
    fd = -1

    def __init__(self, folder: str, start: int) -> None:
        path = f"{folder}/{next(_names)}"
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.unlink(path)
        self.start = self.end = start
        self.runs = array("Q")
        self.marks = array("Q")
        self.times = array("Q")

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    def write(self, stream: int, time_ms: int, data: memoryview) -> None:
        if not self.runs or self.runs[-1] & 1 != stream:
            self.runs.append(self.end * 2 + stream)
        if not self.times or self.times[-1] != time_ms:
            self.marks.append(self.end)
            self.times.append(time_ms)
        while data:
            written = os.pwrite(self.fd, data, self.end - self.start)
            self.end += written
            data = data[written:]

    def stretch(self, offset: int) -> tuple[int, int, int]:
        """Of the bytes from an offset on that are of one stream and one time: the stream, the time, and their end."""
        run = bisect_right(self.runs, offset * 2 + 1)
        mark = bisect_right(self.marks, offset)
        end = min(
            self.runs[run] >> 1 if run < len(self.runs) else self.end,
            self.marks[mark] if mark < len(self.marks) else self.end,
        )
        return self.runs[run - 1] & 1, self.times[mark - 1], end


class Spool:
    """The log of one process. Any number of tasks may read it; not thread-safe."""

    def __init__(
        self,
        folder: str,
        segment: int = SEGMENT,
        limit: int = LIMIT,
        runs: int = RUNS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._segment = segment
        self._limit = limit
        self._runs = runs
        self._clock = clock
        self._segments: list[_Segment] = []
        #: Set, and replaced by a new event, at each change.
        self._changed = asyncio.Event()
        self._ended = False
        #: Offset after the last byte.
        self.end = 0

    def write(self, stream: int, data: bytes) -> None:
        """Append what was read from stream 0 (stdout) or 1 (stderr). If the disk refuses it, it is lost and its offsets
        are skipped: a full disk must not stop the process."""
        target = self.end + len(data)
        try:
            self._write(stream, memoryview(data))
        except OSError:
            self._segments.clear()
        self.end = target
        self._notify()

    def _write(self, stream: int, rest: memoryview) -> None:
        time_ms = int(self._clock() * 1000)
        while rest:
            last = self._segments[-1] if self._segments else None
            if last is None or last.end - last.start >= self._segment or self._is_indexed(last):
                last = _Segment(self._folder, last.end if last else self.end)
                self._segments.append(last)
            piece = rest[: self._segment - (last.end - last.start)]
            last.write(stream, time_ms, piece)
            rest = rest[len(piece) :]
            while last.end - self._segments[0].start > self._limit and len(self._segments) > 1:
                del self._segments[0]

    def _is_indexed(self, segment: _Segment) -> bool:
        """Whether as many changes are held in memory as a segment may have."""
        return max(len(segment.runs), len(segment.marks)) >= self._runs

    def read(self, offset: int, limit: int) -> list[tuple[int, int, int, bytes]]:
        """Up to `limit` bytes from the offset, or from the oldest stored, in order: (stream, offset, milliseconds since
        1970 at which they were read, bytes)."""
        chunks = []
        for segment in self._segments:
            if segment.end <= offset:
                continue
            offset = max(offset, segment.start)
            while limit and offset < segment.end:
                stream, time_ms, end = segment.stretch(offset)
                data = os.pread(segment.fd, min(end - offset, limit), offset - segment.start)
                chunks.append((stream, offset, time_ms, data))
                offset += len(data)
                limit -= len(data)
        return chunks

    def finish(self) -> None:
        """The process has ended and all of its output is here."""
        self._ended = True
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, offset: int, seconds: float) -> bool:
        """Wait until there is something at the offset, the log has ended or the time is over. False if the log has
        ended and holds nothing from that offset on."""
        try:
            async with asyncio.timeout(seconds):
                while not self._ended and self.end <= offset:
                    await self._changed.wait()
        except TimeoutError:
            pass
        return not self._ended or self.end > offset
