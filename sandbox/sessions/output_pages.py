"""Pages of the stored output of one role's app, in both directions, filtered where they are read.

The guest agent stores a bounded amount of output by byte offset. A line is identified by the offset after it, so a page
can begin at any line without reading what is before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from sandbox.domain.levels import Level, level_word, words_from
from sandbox.domain.redaction import Redactor
from sandbox.engine.guest import Guest
from sandbox.engine.guest_data import OutputChunk, Stream
from sandbox.errors import GuestError
from sandbox.launch.output import LineAssembler

#: Read for a page before a line; if this does not hold enough lines, everything before the line is read.
WINDOW_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class OutputLine:
    """A line of an app's output. `end` is the offset after it, `time` when its end was printed (Unix time; None of a
    container whose guest agent is of an earlier release)."""

    end: int
    stream: str
    text: str
    time: float | None = None


@dataclass(frozen=True, slots=True)
class OutputPage:
    """Lines, oldest first, and whether there may be older and newer ones that match."""

    lines: Sequence[OutputLine]
    older: bool
    newer: bool
    #: The offset after the last line that was read, whether it matches or not.
    end: int


@dataclass(frozen=True, slots=True)
class OutputQuery:
    """What a line has to be: of this stream and at least this level, and with this text, in upper or lower case.

    Secrets are redacted before a line is compared, so that a search does not find them out.
    """

    hide: Redactor
    stream: str | None = None
    text: str = ""
    level: Level | None = None

    def matches(self, line: OutputLine) -> bool:
        """Whether the line is one of those that are wanted."""
        return (
            (self.stream is None or line.stream == self.stream)
            and self.text.lower() in line.text.lower()
            and (self.level is None or level_word(line.text) in words_from(self.level))
        )


async def page_after(guest: Guest, process: str, query: OutputQuery, *, after: int, limit: int) -> OutputPage:
    """The first `limit` matching lines that end after an offset, which must be the end of a line or 0."""
    found: list[OutputLine] = []
    end = after
    async with aclosing(output_lines(guest, process, query.hide, after, None)) as lines:
        async for line in lines:
            if query.matches(line):
                if len(found) == limit:
                    return OutputPage(found, older=after > 0, newer=True, end=end)
                found.append(line)
            end = line.end
    return OutputPage(found, older=after > 0, newer=False, end=end)


async def page_before(guest: Guest, process: str, query: OutputQuery, *, before: int | None, limit: int) -> OutputPage:
    """The last `limit` matching lines that end before an offset; by default the last of all."""
    upper = before
    if upper is None:
        info = await guest.process(process)
        upper = info.output_end + 1 if info else 0
    page = OutputPage([], older=False, newer=False, end=0)
    for start in (max(0, upper - WINDOW_BYTES), 0):
        found: deque[OutputLine] = deque(maxlen=limit)
        count, end = 0, 0
        async with aclosing(output_lines(guest, process, query.hide, start, upper)) as lines:
            async for line in lines:
                end = line.end
                if query.matches(line):
                    found.append(line)
                    count += 1
        page = OutputPage([*found], older=count > limit or start > 0, newer=before is not None, end=end)
        if start == 0 or count >= limit:
            break
    return page


async def output_lines(
    guest: Guest, process: str, hide: Redactor, start: int, end: int | None
) -> AsyncGenerator[OutputLine, None]:
    """The lines of a process that end after `start` and before `end`. None if there is no such process.

    If `start` is within a line, or what it refers to is not stored any more, the first line is left out, as it would be
    incomplete.
    """
    assemblers = {stream: LineAssembler(start) for stream in Stream}
    incomplete: Stream | None = None
    is_first = True
    try:
        # The contract promises an iterator; each implementation is a generator, which has to be closed.
        output = cast(AsyncGenerator[OutputChunk, None], guest.output(process, offset=max(0, start - 1), follow=False))
        async with aclosing(output) as chunks:
            async for chunk in chunks:
                if is_first:
                    is_first = False
                    # One byte before `start` tells whether a line ends there.
                    ends_line = chunk.offset == start - 1 and chunk.data[:1] == b"\n"
                    is_aligned = ends_line if start else chunk.offset == 0
                    incomplete = None if is_aligned else chunk.stream
                for line_end, text in assemblers[chunk.stream].feed(chunk):
                    if end is not None and line_end >= end:
                        return
                    if incomplete is chunk.stream:
                        incomplete = None
                    else:
                        yield OutputLine(line_end, chunk.stream.value, hide.text(text), chunk.time)
    except GuestError as error:
        if error.code != "process_not_found":
            raise
