"""A long output of two roles in the console: searched on the server, read page by page, and linked to."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.acceptance.api import Api
from tests.acceptance.console import NewPage, hold, sign_in, visit
from tests.acceptance.service import Service

CHATTY = {
    "sandbox.toml": """
[web]
runtime = "python312"
start = "seq -f 'row %.0f of many' 0 199999; exec python3 -m http.server 8000"
port = 8000

[api]
runtime = "python312"
start = "echo the api is ready; exec python3 -m http.server 8001"
port = 8001
""",
}


@pytest.fixture
async def page(new_page: NewPage, service: Service) -> Page:
    """A page of the console in which the admin is signed in."""
    opened = await new_page()
    await sign_in(opened, service)
    return opened


async def test_many_lines_are_searched_on_the_server_and_linked_to(page: Page, service: Service, admin: Api) -> None:
    await asyncio.to_thread(admin.upload, "chatty", CHATTY)
    session, _ = await asyncio.to_thread(lambda: admin.launch(project_id="chatty"))
    await visit(page, f"{service.url}/sessions/{session['session_id']}/output")
    log = page.get_by_role("log")
    await expect(log.get_by_text("row 199999 of")).to_be_visible(timeout=60_000)
    await expect(page.get_by_text("older ones above")).to_be_visible()
    assert await log.locator(".log-line").count() < 200

    await page.get_by_label("Search the log").fill("ROW 54321 ")
    found = log.locator(".log-line")
    await expect(found).to_have_count(1, timeout=60_000)
    await found.locator(".log-time").click()
    linked = page.url
    await page.goto("about:blank")
    # The page after the line of the link arrives when the reader is already at the first line that has been read.
    at_top = asyncio.Event()
    await hold(page, re.compile("/lines\\?.*after="), at_top)
    await visit(page, linked)
    await expect(log.locator(".log-line[aria-current]")).to_have_text(re.compile("row 54321 of"))
    await expect(page.get_by_role("button", name="Latest")).to_be_visible()
    await log.hover()
    await _scroll_until(page, -4000, lambda row: row <= 54_321 - 999)
    at_top.set()
    await _scroll_until(page, -4000, lambda row: row < 53_000)
    await _scroll_until(page, 4000, lambda row: row > 55_000)
    await page.get_by_role("button", name="Latest").click()
    await expect(log.get_by_text("row 199999 of")).to_be_visible(timeout=60_000)

    async with page.expect_download() as started:
        await page.get_by_role("link", name="Download").click()
    downloaded = Path(await (await started.value).path()).read_text("utf-8").splitlines()
    rows = [line.partition(" web: ")[2] for line in downloaded if " web: row" in line]
    assert [rows[0], rows[-1], len(rows)] == ["row 0 of many", "row 199999 of many", 200_000]
    assert [line for line in downloaded if line.endswith(" api: the api is ready")] != []

    await page.get_by_role("combobox", name="Roles").click()
    await page.get_by_role("option", name="api").click()
    line = log.locator(".log-line").filter(has_text="the api is ready")
    await expect(line.locator(".log-role")).to_have_text("api")
    await expect(log.locator(".log-role").filter(has_text="web")).to_have_count(0)
    assert re.fullmatch(r"\d\d:\d\d:\d\d", await line.locator(".log-time").inner_text())
    await asyncio.to_thread(admin.end, session["session_id"])


async def _scroll_until(page: Page, step: int, is_there: Callable[[int], bool]) -> None:
    """Scroll the log until a line that is drawn has a number of which `is_there` is true."""
    async with asyncio.timeout(120):
        while True:
            drawn = await page.get_by_role("log").inner_text()
            if any(is_there(int(number)) for number in re.findall(r"row (\d+) of", drawn)):
                return
            await page.mouse.wheel(0, step)
            await asyncio.sleep(0.1)
