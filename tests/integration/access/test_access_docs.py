"""The documentation of the API as a page: for callers, and without anything from other hosts."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI

from sandbox.access.browsers import cookie_name
from sandbox.access.tokens import TokenService
from sandbox.api.http import problems
from sandbox.api.routes import docs
from sandbox.db.connection import Database
from sandbox.domain.caller import CallerRole


@pytest.fixture
async def browser(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that is signed in."""
    tokens = TokenService(database)
    app = FastAPI(docs_url=None, redoc_url=None)
    app.state.services = SimpleNamespace(tokens=tokens)
    problems.install(app)
    app.include_router(docs.router)
    caller = await tokens.authenticate((await tokens.create("ada", CallerRole.USER)).token)
    cookies = {cookie_name("http"): await tokens.sign_in(caller)}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://console.example", cookies=cookies) as opened:
        yield opened


async def test_the_page_loads_its_own_files_only(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/docs")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    loaded = re.findall(r'(?:src|href)="(/[^"]*)"', page.text)
    assert len(loaded) == 3
    for path in loaded:
        assert (await browser.get(path)).status_code == 200
    assert "//" not in page.text
    assert not re.search(r"<script>|<style|\son\w+=", page.text)


async def test_it_needs_a_sign_in(browser: httpx.AsyncClient) -> None:
    browser.cookies.clear()
    answer = await browser.get("/docs")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert (await browser.get("/docs/../routes.py")).status_code == 404
    assert (await browser.get("/docs/nothing.js")).status_code == 404
