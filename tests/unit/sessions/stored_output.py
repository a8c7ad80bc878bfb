"""Stored output of a process, for tests of pages of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from sandbox.engine.guest_data import OutputChunk, ProcessInfo, Stream
from sandbox.errors import GuestError


@dataclass
class StoredOutput:
    """The part of a guest agent that stores output: chunks of any size, of which the oldest may be gone."""

    chunks: list[OutputChunk] = field(default_factory=list)
    oldest: int = 0
    read: int = 0

    def add(self, data: bytes, stream: Stream = Stream.STDOUT, *, size: int = 7) -> None:
        offset = self.end
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            self.chunks.append(OutputChunk(stream, offset + start, piece))

    @property
    def end(self) -> int:
        return self.chunks[-1].offset + len(self.chunks[-1].data) if self.chunks else 0

    async def process(self, name: str) -> ProcessInfo | None:
        return ProcessInfo(name, 1, "app", True, None, None, 0.0, None, self.end) if self.chunks else None

    async def output(self, name: str, *, offset: int = 0, follow: bool = True) -> AsyncIterator[OutputChunk]:
        if not self.chunks:
            raise GuestError("there is no such process", code="process_not_found")
        for chunk in self.chunks:
            skip = max(0, max(offset, self.oldest) - chunk.offset)
            if skip < len(chunk.data):
                self.read += len(chunk.data) - skip
                yield OutputChunk(chunk.stream, chunk.offset + skip, chunk.data[skip:], chunk.time)
