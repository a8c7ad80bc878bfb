"""What the tests with a browser share: how to sign in to the console, and how to find what it shows of a session."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

from playwright.async_api import Browser, BrowserContext, Error, FrameLocator, Locator, Page, Response, Route, expect

from tests.acceptance.api import sign_in_link
from tests.acceptance.browsers import LOADS, NETWORK_CHANGED
from tests.acceptance.service import ADMIN_TOKEN, Service

NewPage = Callable[[], Awaitable[Page]]
LAUNCH_MS = 180_000
EXPECT_MS = 60_000


async def new_context(browser: Browser, **options: Any) -> BrowserContext:
    """A browser context without cookies, in which actions have time on a busy machine."""
    context = await browser.new_context(**options)
    context.set_default_timeout(EXPECT_MS)
    return context


async def sign_in(page: Page, service: Service, token: str = ADMIN_TOKEN) -> None:
    """Open the console's first page as the user of a token."""
    await visit(page, service.url)
    await page.get_by_label("Access token").fill(token)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_label("Access token")).to_have_count(0)


async def sign_in_by_link(page: Page, service: Service) -> None:
    """The same, by a link as `sandbox up` prints it. Each link is for one use, so each attempt has one of its own."""
    await _load(page, lambda: sign_in_link(service.url, ADMIN_TOKEN))


async def visit(page: Page, url: str) -> Response:
    """Open an address, again if a change of the machine's network interrupted it (see `browsers.py`)."""
    return await _load(page, lambda: url)


async def _load(page: Page, address: Callable[[], str]) -> Response:
    for _ in range(LOADS):
        try:
            answer = await page.goto(address())
        except Error as error:
            if NETWORK_CHANGED not in error.message:
                raise
        else:
            assert answer is not None
            return answer
    raise AssertionError(f"{address()}: the network changed during each of {LOADS} loads")


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
