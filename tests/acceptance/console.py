"""What the tests with a browser share: how to sign in to the console, and how to find what it shows of a session."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from playwright.async_api import Error, FrameLocator, Locator, Page, Route, expect

from tests.acceptance.browsers import LOADS, NETWORK_CHANGED
from tests.acceptance.service import ADMIN_TOKEN, Service

NewPage = Callable[[], Awaitable[Page]]
LAUNCH_MS = 180_000
EXPECT_MS = 60_000


async def sign_in(page: Page, service: Service, token: str = ADMIN_TOKEN) -> None:
    """Open the console's first page as the user of a token."""
    await visit(page, service.url)
    await page.get_by_label("Access token").fill(token)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_label("Access token")).to_have_count(0)


async def visit(page: Page, url: str) -> None:
    """Open an address, again if a change of the machine's network interrupted it (see `browsers.py`)."""
    for _ in range(LOADS):
        try:
            await page.goto(url)
        except Error as error:
            if NETWORK_CHANGED not in error.message:
                raise
        else:
            return
    raise AssertionError(f"{url}: the network changed during each of {LOADS} loads")


async def hold(page: Page, url: re.Pattern[str], until: asyncio.Event) -> None:
    """Hold back the page's requests to these addresses until the event is set."""

    async def continue_later(route: Route) -> None:
        await until.wait()
        await route.continue_()

    await page.route(url, continue_later)


def preview(page: Page) -> FrameLocator:
    return page.frame_locator("iframe[title='Preview of the app']")


def status_of(page: Page) -> Locator:
    """The status on the page of a session."""
    return page.get_by_test_id("session-status")
