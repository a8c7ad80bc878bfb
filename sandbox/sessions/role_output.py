"""The stored output of several roles' apps as one log, ordered by time: pages in both directions, and the whole.

A place between two lines of this log is a boundary: for each role the offset up to which its output lies before it.
Within a role lines keep their order. Lines of different roles are ordered by the time at which their ends were printed.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from sandbox.concurrency import for_each
from sandbox.db.cursors import invalid_cursor
from sandbox.domain.redaction import Redactor
from sandbox.engine.guest import Guest
from sandbox.sessions.output_pages import OutputLine, OutputPage, OutputQuery, output_lines, page_after, page_before

#: By role: the offset up to which output lies before the boundary.
Boundary = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RoleLine:
    """A line, and the role whose app printed it."""

    role: str
    line: OutputLine


@dataclass(frozen=True, slots=True)
class RolesPage:
    """Lines of several roles, oldest first, whether there may be older and newer ones that match, and the boundaries
    before and after the page."""

    lines: list[RoleLine]
    older: bool
    newer: bool
    start: Boundary
    end: Boundary


def encode_boundary(boundary: Boundary) -> str:
    """The boundary as text that clients pass on unchanged: `backend=120&frontend=77`."""
    return urlencode(boundary)


def decode_boundary(text: str) -> dict[str, int]:
    """The boundary that `encode_boundary` made. Raises InvalidInput for any other text."""
    values = dict(parse_qsl(text))
    if not values or not all(value.isascii() and value.isdigit() and len(value) < 16 for value in values.values()):
        raise invalid_cursor()
    return {role: int(value) for role, value in values.items()}


async def roles_before(
    guests: Mapping[str, Guest], process: str, query: OutputQuery, *, boundary: Boundary | None, limit: int
) -> RolesPage:
    """The last `limit` matching lines before a boundary; by default the last of all.

    A role that the boundary does not name is read up to the time of the last line of those that it names, so that a
    link to one line of one role opens the log of all roles there.
    """
    named = [role for role in guests if boundary is None or role in boundary]
    # One line more than is wanted of each role is read: its end is the boundary before the page.
    pages = await for_each(
        named,
        lambda role: page_before(
            guests[role], process, query, before=boundary[role] + 1 if boundary else None, limit=limit + 1
        ),
    )
    latest = max((page.lines[-1].time or 0.0 for page in pages.values() if page.lines), default=None)
    pages |= await for_each(
        [role for role in guests if role not in named],
        lambda role: _page_until(guests[role], process, query, latest, limit + 1),
    )
    rows = _merged(pages)
    cut, kept = rows[: max(0, len(rows) - limit)], rows[max(0, len(rows) - limit) :]
    return RolesPage(
        kept,
        older=bool(cut) or any(page.older for page in pages.values()),
        newer=boundary is not None,
        start=dict.fromkeys(guests, 0) | {row.role: row.line.end for row in cut},
        end={role: page.end or (boundary or {}).get(role, 0) for role, page in pages.items()},
    )


async def roles_after(
    guests: Mapping[str, Guest], process: str, query: OutputQuery, *, boundary: Boundary, limit: int
) -> RolesPage:
    """The first `limit` matching lines after a boundary. A role that it does not name is read from the beginning."""
    start = {role: boundary.get(role, 0) for role in guests}
    pages = await for_each(
        guests, lambda role: page_after(guests[role], process, query, after=start[role], limit=limit)
    )
    rows = _merged(pages)
    kept, cut = rows[:limit], rows[limit:]
    end = {role: page.end for role, page in pages.items()}
    for role in {row.role for row in cut}:
        end[role] = max((row.line.end for row in kept if row.role == role), default=start[role])
    return RolesPage(
        kept,
        older=any(start.values()),
        newer=bool(cut) or any(page.newer for page in pages.values()),
        start=start,
        end=end,
    )


async def _page_until(guest: Guest, process: str, query: OutputQuery, latest: float | None, limit: int) -> OutputPage:
    """The last `limit` matching lines that were printed up to a time; None: of all. Reads everything before them."""
    found: deque[OutputLine] = deque(maxlen=limit)
    count = end = 0
    async with aclosing(output_lines(guest, process, query.hide, 0, None)) as lines:
        async for line in lines:
            if latest is not None and (line.time or 0.0) > latest:
                break
            end = line.end
            if query.matches(line):
                found.append(line)
                count += 1
    return OutputPage(found, older=count > limit, newer=True, end=end)


def _merged(pages: Mapping[str, OutputPage]) -> list[RoleLine]:
    """The lines of all pages by time. Of lines of the same time those of the role that comes first in the alphabet come
    first, in every page alike."""
    rows = [[RoleLine(role, line) for line in pages[role].lines] for role in sorted(pages)]
    return list(heapq.merge(*rows, key=_time))


def _time(row: RoleLine) -> float:
    return row.line.time or 0.0


async def all_lines(guests: Mapping[str, Guest], process: str, hide: Redactor) -> AsyncIterator[RoleLine]:
    """All stored lines of the roles, ordered by time."""
    async with AsyncExitStack() as stack:
        readers: dict[str, AsyncGenerator[OutputLine, None]] = {}
        for role, guest in guests.items():
            readers[role] = output_lines(guest, process, hide, 0, None)
            await stack.enter_async_context(aclosing(readers[role]))
        heads = {role: line for role, reader in readers.items() if (line := await anext(reader, None))}
        while heads:
            role = min(heads, key=lambda name: (heads[name].time or 0.0, name))
            yield RoleLine(role, heads.pop(role))
            if line := await anext(readers[role], None):
                heads[role] = line
