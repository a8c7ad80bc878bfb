"""Reads documents in worker processes: what a caller sent may make a parser slow or large."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox.knowledge.documents.chunks import Chunk, split
from sandbox.knowledge.documents.formats import to_markdown
from sandbox.workers import Workers, WorkLimits

LIMITS: Final = WorkLimits(cpu_seconds=20, memory_bytes=512 * 1024 * 1024, deadline_seconds=60)


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it is stored: its text in Markdown, and its chunks."""

    content: str
    chunks: list[Chunk]


class DocumentReader:
    """Reads documents. Used from one event loop."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    async def read(self, user_id: str, source: Path | str, content_type: str) -> Document:
        """The document in a file, or a text.

        Raises DocumentUnreadable, FormatUnsupported, and what `Workers.run` raises.
        """
        return await self._workers.run(f"user {user_id}", LIMITS, read_document, source, content_type)


def read_document(source: Path | str, content_type: str) -> Document:
    """The document in a file, or a text. Raises DocumentUnreadable and FormatUnsupported."""
    content = to_markdown(source.read_bytes() if isinstance(source, Path) else source.encode(), content_type)
    return Document(content, split(content))
