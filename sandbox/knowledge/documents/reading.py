"""Reads documents off the event loop, in processes that are killed when a document takes too long."""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass

import anyio
import anyio.to_process
import anyio.to_thread

from sandbox.errors import Kind
from sandbox.knowledge.documents.chunks import Chunk, split
from sandbox.knowledge.documents.formats import DocumentUnreadable, media_type, to_markdown

#: Longest that reading one document may take, and most memory of a process that reads.
READ_SECONDS = 30.0
READ_BYTES = 1024**3
#: A text of this size is split in a thread, in some milliseconds.
SMALL = 65_536
_PROCESSES = 2


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it is stored: its text in Markdown, and its chunks."""

    content: str
    chunks: list[Chunk]


class ReadingTimeout(DocumentUnreadable):
    """Reading the document took too long."""

    code = "document_timeout"
    kind = Kind.TIMEOUT


class DocumentReader:
    """Reads documents. Belongs to one event loop. Its processes end with the service."""

    def __init__(self, read_seconds: float = READ_SECONDS) -> None:
        self._seconds = read_seconds
        self._limiter = anyio.CapacityLimiter(_PROCESSES)

    async def read(self, data: bytes, content_type: str) -> Document:
        """The document. Raises DocumentUnreadable, FormatUnsupported and ReadingTimeout."""
        if len(data) <= SMALL and media_type(content_type) in ("text/plain", "text/markdown"):
            return await anyio.to_thread.run_sync(_read, data, content_type)
        try:
            async with asyncio.timeout(self._seconds):
                return await self._in_process(data, content_type)
        except TimeoutError as error:
            raise ReadingTimeout(
                f"reading the document took longer than {self._seconds:.0f} s", hint="Split it, or send its text."
            ) from error
        except (MemoryError, anyio.BrokenWorkerProcess) as error:
            raise DocumentUnreadable(
                f"reading the document takes more than {READ_BYTES // 1024**2} MiB of memory", hint="Split it."
            ) from error

    async def _in_process(self, data: bytes, content_type: str) -> Document:
        async def attempt() -> Document:
            return await anyio.to_process.run_sync(
                _read_bounded, data, content_type, cancellable=True, limiter=self._limiter
            )

        try:
            return await attempt()
        except anyio.BrokenWorkerProcess:
            # The process that was kept from an earlier document may have ended meanwhile.
            return await attempt()


def _read(data: bytes, content_type: str) -> Document:
    content = to_markdown(data, content_type)
    return Document(content, split(content))


def _read_bounded(data: bytes, content_type: str) -> Document:
    resource.setrlimit(resource.RLIMIT_AS, (READ_BYTES, READ_BYTES))
    return _read(data, content_type)
