"""Chromium for tests, and pages that load although network interfaces of the machine come and go.

Chromium ends all requests with `ERR_NETWORK_CHANGED` when an address of the machine changes, and a container engine
changes addresses with each container and network. A page that was loading then stays incomplete, as it would for a
person, who reloads it.
"""

from __future__ import annotations

import shutil

from playwright.sync_api import Browser, Error, Page, Request, expect

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"
LOADS = 6


def program() -> str:
    """Return the path of the machine's Chromium."""
    return next(path for name in PROGRAMS if (path := shutil.which(name)))


def expect_text(browser: Browser, url: str, text: str, *, seconds: float = 60) -> None:
    """Open the address in a new context and wait until the text is visible. The page is loaded again if a change of the
    machine's network interrupted it."""
    for _ in range(LOADS):
        with browser.new_context() as context:
            if _shows(context.new_page(), url, text, seconds):
                return
    raise AssertionError(f"{url}: the network changed during each of {LOADS} loads")


def _shows(page: Page, url: str, text: str, seconds: float) -> bool:
    """Return False if a change of the network interrupted the page before the text was visible."""
    interrupted: list[str] = []

    def note(request: Request) -> None:
        if request.failure == NETWORK_CHANGED:
            interrupted.append(request.url)

    page.on("requestfailed", note)
    try:
        page.goto(url)
        shown = page.get_by_text(text).first
        expect(shown).to_be_visible(timeout=seconds * 1_000)
    except (AssertionError, Error):
        if interrupted:
            return False
        raise
    return True
