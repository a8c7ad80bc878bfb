"""Signing in to the console with tokens of a real database."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from sandbox.access.browsers import cookie_name
from sandbox.access.tokens import TokenService
from sandbox.api.http import problems
from sandbox.console import assets, routes
from sandbox.domain.caller import Caller, CallerRole
from sandbox.settings import Settings
from tests.fakes.secrets import signer as signer_of

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Services:
    settings: Settings
    tokens: TokenService


COOKIE = cookie_name("http")


async def code_of(service, made):
    """A code that signs a browser in once, as the user of the token."""
    return await service.tokens.sign_in_code(await service.tokens.authenticate(made.token))


@pytest.fixture
async def service(database, tmp_path):
    return Services(Settings(home=tmp_path, preview_domain="p.example"), TokenService(database))


@pytest.fixture
async def browser(service):
    app = FastAPI()
    problems.install(app)
    app.include_router(routes.router)
    app.state.services = service
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://console.example") as opened:
        yield opened


@pytest.fixture
async def made(service):
    return await service.tokens.create("ann", CallerRole.USER)


async def test_without_a_cookie_the_login_form_is_shown(browser):
    answer = await browser.get("/")
    assert answer.status_code == 401
    assert '<form method="post" action="/">' in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("way", ["link", "form", "token in the address"])
async def test_a_token_is_exchanged_for_a_cookie_and_removed_from_the_url(browser, service, made, way):
    if way == "link":
        answer = await browser.get("/sign-in", params={"code": await code_of(service, made)})
    elif way == "form":
        answer = await browser.post("/", data={"token": f" {made.token} "})
    else:
        answer = await browser.get("/", params={"token": made.token})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert answer.headers["referrer-policy"] == "no-referrer"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert made.token not in cookie
    assert {"HttpOnly", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
    caller = await service.tokens.authenticate_cookies([browser.cookies[COOKIE]])
    assert caller.user_id == "ann"
    page = await browser.get("/")
    assert page.status_code == 200
    assert '<meta name="caller" content="ann" data-role="user" />' in page.text


async def test_over_tls_the_cookie_is_secure(browser, made):
    browser.base_url = "https://console.example"
    answer = await browser.post("/", data={"token": made.token})
    name, *attributes = answer.headers["set-cookie"].split("; ")
    assert name.startswith("__Host-")
    assert "Secure" in attributes
    assert "Path=/" in attributes
    assert not any(attribute.lower().startswith("domain") for attribute in attributes)
    assert (await browser.get("/")).status_code == 200
    # A cookie without the prefix, which a page of another host can set, counts for nothing.
    value = browser.cookies[name.partition("=")[0]]
    browser.cookies.clear()
    assert (await browser.get("/", headers={"cookie": f"{COOKIE}={value}"})).status_code == 401


@pytest.mark.parametrize("token", ["", "unknown", "sbx_" + "x" * 43, "\0", "<script>alert(1)</script>"])
async def test_an_unknown_token_is_reported(browser, token):
    by_link, by_form = (
        await browser.get("/sign-in", params={"code": token}),
        await browser.post("/", data={"token": token}),
    )
    assert "This token is not known here" in by_form.text
    assert "This link has been used already" in by_link.text
    for answer in (by_link, by_form):
        assert answer.status_code == 401
        assert "<script" not in answer.text
        assert "set-cookie" not in answer.headers


async def test_a_form_that_is_too_large_is_refused(browser):
    answer = await browser.post("/", data={"token": "x" * 5000})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("cookie", ["forged", "", "a.b.c"])
async def test_a_forged_cookie_shows_the_login_form(browser, cookie):
    answer = await browser.get("/", headers={"cookie": f"{COOKIE}={cookie}"})
    assert answer.status_code == 401
    assert "Sign in" in answer.text


async def test_revoking_a_token_invalidates_its_cookies(browser, service, made):
    await browser.post("/", data={"token": made.token})
    await service.tokens.revoke(made.record.token_id)
    assert (await browser.get("/")).status_code == 401


async def test_a_preview_link_does_not_authenticate_a_caller(browser, made):
    caller = Caller("ann", CallerRole.USER, str(made.record.token_id))
    signed = signer_of(b"k").sign_preview(uuid4(), caller.signed_in_by)
    answer = await browser.get("/", headers={"cookie": f"{COOKIE}={signed}"})
    assert answer.status_code == 401


async def test_signing_out_removes_the_cookie_and_ends_it(browser, made):
    await browser.post("/", data={"token": made.token})
    kept = browser.cookies[COOKIE]
    answer = await browser.post("/logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert (await browser.get("/")).status_code == 401
    assert (await browser.get("/", headers={"cookie": f"{COOKIE}={kept}"})).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://x.p.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
async def test_a_page_of_another_origin_signs_neither_in_nor_out(browser, service, made, headers):
    code = await code_of(service, made)
    by_link = await browser.get("/sign-in", params={"code": code}, headers=headers)
    by_address = await browser.get("/", params={"token": made.token}, headers=headers)
    assert (by_link.status_code, by_address.status_code) == (401, 401)
    by_form = await browser.post("/", data={"token": made.token}, headers=headers)
    assert (by_form.status_code, by_form.json()["code"]) == (403, "cross_origin")
    assert "set-cookie" not in {*by_link.headers, *by_form.headers, *by_address.headers}
    # The link was not used up.
    assert (await browser.get("/sign-in", params={"code": code}, headers={"Sec-Fetch-Site": "none"})).status_code == 303
    signed_out = await browser.post("/logout", headers=headers)
    assert (signed_out.status_code, signed_out.json()["code"]) == (403, "cross_origin")
    assert (await browser.get("/")).status_code == 200


async def test_a_link_works_once(browser, service, made):
    code = await code_of(service, made)
    assert (await browser.get("/sign-in", params={"code": code})).status_code == 303
    browser.cookies.clear()
    assert (await browser.get("/sign-in", params={"code": code})).status_code == 401


@pytest.mark.parametrize("path", ["/new", "/sessions/abc", "/sessions/abc/log", "/recovery", "/platform/traces/1/2"])
async def test_every_page_has_an_address_that_survives_signing_in(browser, made, path):
    answer = await browser.get(path)
    assert answer.status_code == 401
    assert f'<input type="hidden" name="next" value="{path}">' in answer.text
    answer = await browser.post("/", data={"token": made.token, "next": path})
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    assert (await browser.get(path)).text.count('id="root"') == 1


@pytest.mark.parametrize("following", ["//evil.example", "https://evil.example", "/\\evil.example", "", "/a\r\nb: c"])
async def test_signing_in_leads_to_no_other_host(browser, made, following):
    answer = await browser.post("/", data={"token": made.token, "next": following})
    assert answer.headers["location"] == "/"


async def test_the_page_may_load_its_own_files_and_frame_previews_only(browser, made):
    await browser.post("/", data={"token": made.token})
    answer = await browser.get("/")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-src"] == "http://*.p.example:* https://*.p.example:*"
    assert answer.headers["cache-control"] == "no-store"
    # The page has nothing that the policy would block, and nothing of another host.
    assert not re.search(
        r"<script(?! type=\"module\" crossorigin src=\"/console/)|<style|\son\w+=|style=|://", answer.text
    )


async def test_styles_of_libraries_need_a_nonce_that_is_new_each_time(browser, made):
    await browser.post("/", data={"token": made.token})
    nonces = set()
    for _ in range(2):
        answer = await browser.get("/")
        (nonce,) = re.findall(r'<meta name="style-nonce" content="([\w-]{20,})" />', answer.text)
        assert f"style-src 'self' 'nonce-{nonce}';" in answer.headers["content-security-policy"]
        nonces.add(nonce)
    assert len(nonces) == 2
    login = await browser.get("/", headers={"cookie": ""})
    assert "nonce" not in login.headers["content-security-policy"]


async def test_what_is_filled_in_is_escaped(browser, service):
    made = await service.tokens.create("a+b@example", CallerRole.ADMIN)
    await browser.post("/", data={"token": made.token})
    page = (await browser.get("/")).text
    assert '<meta name="caller" content="a+b@example" data-role="admin" />' in page
    assert "__" not in page


async def test_the_files_that_the_page_names_are_served_compressed_and_kept(browser, made):
    await browser.post("/", data={"token": made.token})
    names = re.findall(r'(?:src|href)="(/console/[^"]+)"', (await browser.get("/")).text)
    assert {name.rpartition(".")[2] for name in names} == {"js", "css"}
    for name in names:
        plain = await browser.get(name, headers={"accept-encoding": "identity"})
        packed = await browser.get(name, headers={"accept-encoding": "gzip"})
        assert (plain.status_code, packed.status_code) == (200, 200)
        assert "content-encoding" not in plain.headers
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.content == plain.content
        assert "immutable" in plain.headers["cache-control"]
        assert plain.headers["x-content-type-options"] == "nosniff"


async def test_the_login_page_has_a_style(browser):
    answer = await browser.get("/console/login.css")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")


@pytest.mark.parametrize("name", ["index.html", "manifest.json", "..%2froutes.py", "assets/..%2findex.html", "nothing"])
async def test_no_other_file_is_served(browser, name):
    assert (await browser.get(f"/console/{name}")).status_code == 404


async def test_a_console_that_was_not_built_is_reported(browser, made, monkeypatch, tmp_path):
    await browser.post("/", data={"token": made.token})
    monkeypatch.setattr(assets, "_BUILT", tmp_path)
    assets.page.cache_clear()
    answer = await browser.get("/")
    assets.page.cache_clear()
    assert (answer.status_code, answer.json()["code"]) == (503, "console_not_built")
    assert "make environment" in answer.json()["hint"]


def test_scripts_never_insert_data_as_markup():
    sources = [file for file in (ROOT / "console" / "src").rglob("*.ts*") if file.name != "schema.d.ts"]
    assert sources
    for source in sources:
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|dangerously",
            source.read_text("utf-8"),
        )
        assert found == [], source
