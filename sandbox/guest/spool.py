"""What a named process printed: one log of both streams in the order it was read, in files, bounded.

Offsets count bytes of the combined log from the process's start. The log is kept in segments; when more than `limit`
bytes are kept the oldest segment goes. The files have no name: they are root's, and gone when the agent is.
"""

from __future__ import annotations

import itertools
import os
import threading
from array import array
from bisect import bisect_right

SEGMENT = 4 * 1024 * 1024
LIMIT = 32 * 1024 * 1024
#: A segment ends too after so many changes between the streams: their places are kept in memory.
RUNS = 65_536

_names = itertools.count()


class _Segment:
    """One file, closed when nobody reads it any more. `runs` holds, for each change of stream, offset * 2 + stream."""

    #: -1 until there is a file.
    fd = -1

    def __init__(self, folder: str, start: int) -> None:
        path = f"{folder}/{next(_names)}"
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.unlink(path)
        self.start = self.end = start
        self.runs = array("Q")

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    def write(self, stream: int, data: memoryview) -> None:
        if not self.runs or self.runs[-1] & 1 != stream:
            self.runs.append(self.end * 2 + stream)
        while data:
            written = os.pwrite(self.fd, data, self.end - self.start)
            self.end += written
            data = data[written:]


class Spool:
    """The log of one process. Any thread may read while one writes."""

    def __init__(self, folder: str, segment: int = SEGMENT, limit: int = LIMIT, runs: int = RUNS) -> None:
        self._folder = folder
        self._segment = segment
        self._limit = limit
        self._runs = runs
        self._segments: list[_Segment] = []
        self._changed = threading.Condition()
        self._ended = False
        #: Offset after the last byte.
        self.end = 0

    def write(self, stream: int, data: bytes) -> None:
        """Append what was read from stream 0 (stdout) or 1 (stderr). What the disk does not take is lost, and its
        offsets are skipped: the process must go on whatever the disk is like."""
        with self._changed:
            target = self.end + len(data)
            try:
                self._write(stream, memoryview(data))
            except OSError:
                self._segments.clear()
            self.end = target
            self._changed.notify_all()

    def _write(self, stream: int, rest: memoryview) -> None:
        while rest:
            last = self._segments[-1] if self._segments else None
            if last is None or last.end - last.start >= self._segment or len(last.runs) >= self._runs:
                last = _Segment(self._folder, last.end if last else self.end)
                self._segments.append(last)
            piece = rest[: self._segment - (last.end - last.start)]
            last.write(stream, piece)
            rest = rest[len(piece) :]
            while last.end - self._segments[0].start > self._limit and len(self._segments) > 1:
                del self._segments[0]

    def read(self, offset: int, limit: int) -> list[tuple[int, int, bytes]]:
        """Up to `limit` bytes from the offset, or from the oldest kept: (stream, offset, bytes) in order."""
        with self._changed:
            chunks = []
            for segment in self._segments:
                if segment.end <= offset:
                    continue
                offset = max(offset, segment.start)
                while limit and offset < segment.end:
                    run = bisect_right(segment.runs, offset * 2 + 1) - 1
                    end = segment.runs[run + 1] >> 1 if run + 1 < len(segment.runs) else segment.end
                    data = os.pread(segment.fd, min(end - offset, limit), offset - segment.start)
                    chunks.append((segment.runs[run] & 1, offset, data))
                    offset += len(data)
                    limit -= len(data)
            return chunks

    def finish(self) -> None:
        """The process has ended and all it printed is here."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait(self, offset: int, seconds: float) -> bool:
        """Wait until there is something at the offset or the log has ended; whether the log goes on from there."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self.end > offset, seconds)
            return not self._ended or self.end > offset
