"""Pages of stored output: every line is in exactly one page, in both directions, whatever the page's size."""

from __future__ import annotations

from typing import cast

import pytest

from sandbox.domain.redaction import Redactor
from sandbox.engine.guest import Guest
from sandbox.engine.guest_data import Stream
from sandbox.sessions import output_pages
from sandbox.sessions.output_pages import OutputQuery, page_after, page_before
from tests.unit.sessions.stored_output import StoredOutput

SHOWN = Redactor({})
ALL = OutputQuery(SHOWN)


@pytest.fixture
def stored() -> StoredOutput:
    return StoredOutput()


def guest(stored: StoredOutput) -> Guest:
    return cast(Guest, stored)


def numbered(count: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(count))


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_pages_forwards_have_every_line_once(stored: StoredOutput, limit: int) -> None:
    stored.add(numbered(50))
    texts, position = [], 0
    while True:
        page = await page_after(guest(stored), "app", ALL, after=position, limit=limit)
        texts += [line.text for line in page.lines]
        if not page.newer:
            break
        position = page.lines[-1].end
    assert texts == [f"line {number}" for number in range(50)]
    assert page.end == stored.end


@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize("window", [16, 64, 100_000])
async def test_pages_backwards_have_every_line_once(
    stored: StoredOutput, monkeypatch: pytest.MonkeyPatch, limit: int, window: int
) -> None:
    monkeypatch.setattr(output_pages, "WINDOW_BYTES", window)
    stored.add(numbered(50))
    texts: list[str] = []
    position: int | None = None
    while True:
        page = await page_before(guest(stored), "app", ALL, before=position, limit=limit)
        texts = [line.text for line in page.lines] + texts
        if not page.older or not page.lines:
            break
        position = page.lines[0].end
    assert texts == [f"line {number}" for number in range(50)]


async def test_the_newest_page_reads_the_end_only(stored: StoredOutput, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_pages, "WINDOW_BYTES", 1000)
    stored.add(numbered(10_000), size=100)
    page = await page_before(guest(stored), "app", ALL, before=None, limit=20)
    assert [line.text for line in page.lines] == [f"line {number}" for number in range(9_980, 10_000)]
    assert page.older
    assert not page.newer
    assert stored.read < 1200


async def test_lines_are_found_by_text_and_stream(stored: StoredOutput) -> None:
    stored.add(b"one\nTwo\n")
    stored.add(b"two on stderr\n", Stream.STDERR)
    stored.add(b"three\n")
    found = await page_before(guest(stored), "app", OutputQuery(SHOWN, text="tWO"), before=None, limit=10)
    assert [line.text for line in found.lines] == ["Two", "two on stderr"]
    found = await page_after(guest(stored), "app", OutputQuery(SHOWN, stream="stderr"), after=0, limit=10)
    assert [(line.text, line.stream) for line in found.lines] == [("two on stderr", "stderr")]
    # Following goes on after everything that was read, not after the last line that matched.
    assert found.end == stored.end


async def test_lines_are_found_by_level(stored: StoredOutput) -> None:
    stored.add(b"INFO: no error\n[warn] slow\n\x1b[31mERROR\x1b[0m failed\nplain\n")
    found = await page_before(guest(stored), "app", OutputQuery(SHOWN, level="warning"), before=None, limit=10)
    assert [line.text for line in found.lines] == ["[warn] slow", "\x1b[31mERROR\x1b[0m failed"]


async def test_a_line_whose_beginning_is_not_stored_any_more_is_left_out(stored: StoredOutput) -> None:
    stored.add(b"dropped\ncut off\nwhole\n")
    stored.oldest = 11
    page = await page_before(guest(stored), "app", ALL, before=None, limit=10)
    assert [line.text for line in page.lines] == ["whole"]


async def test_a_process_that_is_not_there_has_no_lines(stored: StoredOutput) -> None:
    for page in (
        await page_before(guest(stored), "app", ALL, before=None, limit=10),
        await page_after(guest(stored), "app", ALL, after=0, limit=10),
    ):
        assert (list(page.lines), page.older, page.newer) == ([], False, False)
