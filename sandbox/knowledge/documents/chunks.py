"""Splitting documents into chunks that are searched and put into prompts one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt

#: Maximum number of characters in a chunk.
MAX_CHUNK = 2_000
#: At most so many characters of a chunk are repeated at the beginning of the next one below the same heading.
OVERLAP = 200
#: Maximum number of characters of a heading with those above it.
MAX_HEADING = 500


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a document, and the headings above it, from the outermost: `Guide > Deploying`."""

    heading: str | None
    content: str


def split(content: str) -> list[Chunk]:
    """Split a document in Markdown, or plain text, into chunks, in order.

    A chunk has whole paragraphs if they fit, and never extends across a heading. It begins with the end of the chunk
    before it, so that a sentence at the border is whole in one of them. May take seconds: call it in a worker.
    """
    return [
        Chunk(heading, piece)
        for heading, section in _sections(content.replace("\r\n", "\n"))
        for piece in _pieces(section)
    ]


def _sections(content: str) -> Iterator[tuple[str | None, str]]:
    """Each heading with those above it, and the text below it up to the next heading."""
    lines = content.split("\n")
    above: list[tuple[int, str]] = []
    begin = 0
    tokens = MarkdownIt("commonmark").parse(content)
    for index, token in enumerate(tokens):
        if token.type != "heading_open" or token.map is None or token.level != 0:
            continue
        yield _path(above), "\n".join(lines[begin : token.map[0]])
        level, title = int(token.tag[1:]), " ".join(tokens[index + 1].content.split())
        above = [heading for heading in above if heading[0] < level] + ([(level, title)] if title else [])
        begin = token.map[1]
    yield _path(above), "\n".join(lines[begin:])


def _path(above: list[tuple[int, str]]) -> str | None:
    return " > ".join(title for _, title in above)[-MAX_HEADING:] or None


def _pieces(section: str) -> Iterator[str]:
    """The text in pieces of at most `MAX_CHUNK` characters that overlap."""
    piece = ""
    for paragraph in re.split(r"\n[ \t]*\n", section):
        for part in _parts(paragraph):
            if piece and len(piece) + len(part) + 2 > MAX_CHUNK:
                yield piece.strip()
                piece = _end_of(piece)
            piece += ("\n\n" if piece else "") + part
    if piece.strip():
        yield piece.strip()


def _end_of(piece: str) -> str:
    """The last words of a piece, at most `OVERLAP` characters; empty if it ends with a longer word."""
    end = piece.strip()[-OVERLAP:]
    cut = re.search(r"\s", end)
    return end[cut.end() :].strip() if cut and len(piece.strip()) > OVERLAP else ""


def _parts(paragraph: str) -> list[str]:
    """A paragraph in parts that fit into a chunk beside an overlap, split at white space if there is any."""
    room = MAX_CHUNK - OVERLAP - 2
    parts = []
    while len(paragraph) > room:
        end = max(paragraph.rfind(" ", 1, room), paragraph.rfind("\n", 1, room))
        end = end if end > 0 else room
        parts.append(paragraph[:end])
        paragraph = paragraph[end:].lstrip()
    return [*parts, paragraph.strip("\n")] if paragraph.strip() else parts
