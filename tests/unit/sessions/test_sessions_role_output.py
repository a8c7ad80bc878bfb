"""The output of several roles as one log: ordered by time, every line in exactly one page in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest

from sandbox.domain.redaction import Redactor
from sandbox.engine.guest import Guest
from sandbox.engine.guest_data import OutputChunk, Stream
from sandbox.errors import InvalidInput
from sandbox.sessions.output_pages import OutputQuery
from sandbox.sessions.role_output import (
    RolesPage,
    all_lines,
    decode_boundary,
    encode_boundary,
    roles_after,
    roles_before,
)
from tests.unit.sessions.stored_output import StoredOutput

SHOWN = Redactor({})
ALL = OutputQuery(SHOWN)


def printed(lines: Mapping[float, str]) -> Guest:
    """A guest whose app has printed these lines, by their time."""
    stored = StoredOutput()
    for time, text in lines.items():
        stored.chunks.append(OutputChunk(Stream.STDOUT, stored.end, f"{text}\n".encode(), time))
    return cast(Guest, stored)


#: The backend prints at every even second, the frontend at every third, the worker once.
GUESTS = {
    "backend": printed({float(second): f"{second:02} backend" for second in range(0, 60, 2)}),
    "frontend": printed({float(second): f"{second:02} frontend" for second in range(0, 60, 3)}),
    "worker": printed({31.0: "31 worker"}),
}
WANTED = sorted(
    [f"{second:02} backend" for second in range(0, 60, 2)]
    + [f"{second:02} frontend" for second in range(0, 60, 3)]
    + ["31 worker"]
)


def texts(page: RolesPage) -> list[str]:
    return [row.line.text for row in page.lines]


@pytest.mark.parametrize("limit", [1, 4, 100])
async def test_pages_backwards_have_every_line_once_and_in_order(limit: int) -> None:
    page = await roles_before(GUESTS, "app", ALL, boundary=None, limit=limit)
    found = texts(page)
    while page.older:
        page = await roles_before(GUESTS, "app", ALL, boundary=page.start, limit=limit)
        assert page.newer
        found = texts(page) + found
    assert found == WANTED


@pytest.mark.parametrize("limit", [1, 4, 100])
async def test_pages_forwards_have_every_line_once_and_in_order(limit: int) -> None:
    page = await roles_after(GUESTS, "app", ALL, boundary={}, limit=limit)
    found = texts(page)
    while page.newer:
        page = await roles_after(GUESTS, "app", ALL, boundary=page.end, limit=limit)
        found += texts(page)
    assert found == WANTED


async def test_reading_turns_round_at_either_end_of_a_page() -> None:
    page = await roles_before(GUESTS, "app", ALL, boundary=None, limit=20)
    middle = await roles_before(GUESTS, "app", ALL, boundary=page.start, limit=5)
    assert texts(middle) == WANTED[-25:-20]
    assert texts(await roles_after(GUESTS, "app", ALL, boundary=middle.end, limit=20)) == WANTED[-20:]
    assert texts(await roles_after(GUESTS, "app", ALL, boundary=middle.start, limit=5)) == WANTED[-25:-20]


async def test_a_link_to_a_line_of_one_role_leads_to_that_time_in_all() -> None:
    page = await roles_before(GUESTS, "app", ALL, boundary=None, limit=100)
    linked = next(row for row in page.lines if row.line.text == "33 frontend")
    found = await roles_before(GUESTS, "app", ALL, boundary={"frontend": linked.line.end}, limit=4)
    assert texts(found) == ["30 frontend", "31 worker", "32 backend", "33 frontend"]
    following = await roles_after(GUESTS, "app", ALL, boundary=found.end, limit=2)
    assert texts(following) == ["34 backend", "36 backend"]


async def test_matching_lines_only() -> None:
    query = OutputQuery(SHOWN, text="FRONT")
    page = await roles_before(GUESTS, "app", query, boundary=None, limit=3)
    assert texts(page) == ["51 frontend", "54 frontend", "57 frontend"]
    assert texts(await roles_before(GUESTS, "app", query, boundary=page.start, limit=1)) == ["48 frontend"]


async def test_the_whole_log() -> None:
    assert [row.line.text async for row in all_lines(GUESTS, "app", SHOWN)] == WANTED


async def test_lines_without_times_keep_their_order_within_a_role() -> None:
    old = StoredOutput()
    old.add(b"first\nsecond\n")
    guests = {"old": cast(Guest, old), "worker": GUESTS["worker"]}
    page = await roles_before(guests, "app", ALL, boundary=None, limit=10)
    assert texts(page) == ["first", "second", "31 worker"]


def test_boundaries_are_text() -> None:
    assert decode_boundary(encode_boundary({"web": 12, "api": 0})) == {"web": 12, "api": 0}
    for bad in ("", "web", "web=", "web=-1", "web=1e3", f"web={10**15}"):
        with pytest.raises(InvalidInput):
            decode_boundary(bad)
