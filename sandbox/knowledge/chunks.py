"""Splitting documents into chunks that are searched and put into prompts one by one."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Maximum number of characters in a chunk.
MAX_CHUNK = 2_000
_HEADING = re.compile(r"#{1,6}\s+(.{1,500}?)\s*#*$")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a document, and the heading above it."""

    heading: str | None
    content: str


def split(content: str) -> list[Chunk]:
    """Split a document into chunks, in order.

    A chunk has whole paragraphs if they fit, and never extends across a Markdown heading.
    """
    chunks: list[Chunk] = []
    heading: str | None = None
    piece = ""

    def close() -> None:
        nonlocal piece
        if piece.strip():
            chunks.append(Chunk(heading, piece.strip()))
        piece = ""

    for paragraph in re.split(r"\n[ \t]*\n", content.replace("\r\n", "\n")):
        first, _, rest = paragraph.lstrip("\n").partition("\n")
        match = _HEADING.fullmatch(first)
        if match:
            close()
            heading = match[1]
        for part in _parts(rest if match else paragraph):
            if len(piece) + len(part) + 2 > MAX_CHUNK:
                close()
            piece += ("\n\n" if piece else "") + part
    close()
    return chunks


def _parts(paragraph: str) -> list[str]:
    """A paragraph in parts that fit into a chunk, split at white space if there is any."""
    parts = []
    while len(paragraph) > MAX_CHUNK:
        end = max(paragraph.rfind(" ", 1, MAX_CHUNK), paragraph.rfind("\n", 1, MAX_CHUNK))
        end = end if end > 0 else MAX_CHUNK
        parts.append(paragraph[:end])
        paragraph = paragraph[end:].lstrip()
    return [*parts, paragraph] if paragraph.strip() else parts
