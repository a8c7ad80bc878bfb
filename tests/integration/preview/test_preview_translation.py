"""What an app is asked, and what is taken from its answers."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import httpx
import pytest

from sandbox.domain.caller import SignedInBy
from sandbox.edge.access_log import AccessLogReader, PreviewRequest
from tests.integration.preview.conftest import Servers, World

OTHER = 5173


def seen(world: World) -> dict[str, str]:
    """The headers of the last request that the app was asked."""
    return {name.decode(): value.decode() for name, value in world.app.seen[-1]["headers"]}


async def answered(
    world: World, client: httpx.AsyncClient, session_id: UUID, *headers: tuple[str, str], **more: str
) -> httpx.Headers:
    """What becomes of these headers of the app's answer."""
    query = urlencode(headers)
    answer = await client.get(f"/headers?{query}", headers=world.headers(session_id) | more)
    assert answer.status_code == 200, answer.text
    return answer.headers


@pytest.mark.parametrize("header", ["origin", "referer"])
async def test_addresses_of_the_session_are_localhost_to_the_app(
    world: World, client: httpx.AsyncClient, header: str
) -> None:
    session_id, foreign = world.session(), world.session()
    app = f"http://localhost:{world.app_port}"
    rest = "" if header == "origin" else "/page?a=http://x.example/"
    expected = {
        f"http://{world.host(session_id)}": app,
        f"http://{world.host(session_id, world.app_port)}": app,
        f"http://{world.host(session_id, OTHER)}": f"http://localhost:{OTHER}",
        f"https://{world.host(session_id, OTHER)}": f"http://localhost:{OTHER}",
    }
    if header == "referer":  # an app may be opened by a link from elsewhere
        expected |= {"http://elsewhere.example": "http://elsewhere.example"}
        expected |= {f"http://{world.host(foreign)}": f"http://{world.host(foreign)}"}
    for port in (None, world.app_port):
        for sent, told in expected.items():
            headers = world.headers(session_id, port) | {header: sent + rest}
            answer = await client.get("/", headers=headers)
            assert answer.status_code == 200
            assert seen(world)[header] == told + rest
            assert seen(world)["host"] == f"localhost:{world.app_port}"


async def test_without_origin_and_referer_the_app_sees_none(world: World, client: httpx.AsyncClient) -> None:
    await client.get("/", headers=world.headers(world.session()))
    assert not {"origin", "referer"} & set(seen(world))


async def test_with_public_names_the_app_is_asked_as_the_visitor_asks(world: World, client: httpx.AsyncClient) -> None:
    session_id = world.session(public_names=True)
    link = world.signer.sign_preview(session_id, SignedInBy("ann"))
    host = world.host(session_id)
    opened = await client.get(f"/?_sbx={link}", headers={"host": host})
    cookie = opened.headers["set-cookie"].partition(";")[0]
    assert cookie.endswith(".public")
    resolved = world.sessions.resolved
    headers = {"host": host, "cookie": cookie, "origin": f"http://{host}", "referer": f"http://{host}/x"}
    assert (await client.get("/", headers=headers)).status_code == 200  # makes the socket
    assert (await client.get("/", headers=headers)).status_code == 200  # passes by the cookie alone
    assert world.sessions.resolved <= resolved + 1
    for name in ("host", "origin", "referer"):
        assert seen(world)[name] == headers[name]
    assert seen(world)["x-forwarded-host"] == host
    assert seen(world)["x-forwarded-port"] == str(world.port)


async def test_addresses_in_answers_lead_to_previews(world: World, client: httpx.AsyncClient) -> None:
    session_id = world.session()
    own, port = f"http://{world.host(session_id)}", world.app_port
    other = f"http://{world.host(session_id, OTHER)}"
    cases = [
        ("Location", f"http://localhost:{port}/there", f"{own}/there"),
        ("Location", f"https://127.0.0.1:{port}", own),
        ("Location", f"http://0.0.0.0:{port}?a=1", f"{own}?a=1"),
        ("Location", f"http://[::1]:{port}/", f"{own}/"),
        ("Location", f"http://localhost:{OTHER}/x", f"{other}/x"),
        ("Location", "/relative", "/relative"),
        ("Location", f"https://sign.in/?to=http://localhost:{port}/", f"https://sign.in/?to=http://localhost:{port}/"),
        ("Refresh", f"0; url=http://localhost:{port}/next", f"0; url={own}/next"),
        ("Refresh", f"5;URL='http://0.0.0.0:{OTHER}/'", f"5;URL='{other}/'"),
        ("Refresh", "5", "5"),
        ("Link", f'<http://localhost:{port}/?p=2>; rel="next"', f'<{own}/?p=2>; rel="next"'),
        ("Link", "</style.css>; rel=preload", "</style.css>; rel=preload"),
    ]
    for name, sent, expected in cases:
        headers = await answered(world, client, session_id, (name, sent))
        assert headers[name] == expected


async def test_an_allowed_origin_is_named_as_the_browser_knows_it(world: World, client: httpx.AsyncClient) -> None:
    session_id = world.session()
    name = "Access-Control-Allow-Origin"
    origin = f"http://{world.host(session_id, OTHER)}"
    for sent, expected in [(f"http://localhost:{OTHER}", origin), ("*", "*"), ("http://a-b.c", "http://a-b.c")]:
        headers = await answered(world, client, session_id, (name, sent), origin=origin)
        assert headers[name] == expected
        headers = await answered(world, client, session_id, (name, sent))
        assert headers[name] == sent


async def test_cookies_stay_on_their_host_and_work_over_http(world: World, client: httpx.AsyncClient) -> None:
    sent = {
        "a=1; Domain=localhost; Path=/": "a=1; Path=/",
        "b=2; Path=/; Secure; HttpOnly": "b=2; Path=/; HttpOnly",
        "c=3; secure": "c=3",
        "d=4; Secure; SameSite=None": "d=4; Secure; SameSite=None",
        "e=5; SameSite=None; Secure; Path=/": "e=5; SameSite=None; Secure; Path=/",
        "__Host-f=6; Path=/; Secure": "__Host-f=6; Path=/; Secure",
        "g=secure; SameSite=Lax": "g=secure; SameSite=Lax",
    }
    headers = await answered(world, client, world.session(), *(("Set-Cookie", each) for each in sent))
    assert headers.get_list("set-cookie") == list(sent.values())


class Visitor:
    """A browser: it has cookies for each host, and follows redirects between the hosts of a session."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._cookies: dict[str, str] = {}

    async def open(self, host: str, target: str, **headers: str) -> tuple[str, httpx.Response]:
        """Open a page; the URL at which that ends, and the answer."""
        for _ in range(5):
            sent = {"host": host, "sec-fetch-mode": "navigate", "sec-fetch-site": "none", **headers}
            if host in self._cookies:
                sent["cookie"] = self._cookies[host]
            answer = await self._client.get(target, headers=sent)
            self._client.cookies.clear()  # it would send them to every host
            if "set-cookie" in answer.headers:
                self._cookies[host] = answer.headers["set-cookie"].partition(";")[0]
            if answer.status_code != 302:
                return f"{host}{target}", answer
            target = answer.headers["location"]
            if target.startswith("//"):
                host, slash, path = target[2:].partition("/")
                target = slash + path
        raise AssertionError("the redirects do not end")


async def test_one_sign_in_is_enough_for_all_ports(world: World, client: httpx.AsyncClient) -> None:
    session_id = world.session()
    visitor, link = Visitor(client), world.signer.sign_preview(session_id, SignedInBy("ann"))
    await visitor.open(world.host(session_id), f"/?_sbx={link}")
    other = world.host(session_id, world.app6_port)
    url, answer = await visitor.open(other, "/deep%2Fer?a=1")
    assert (url, answer.status_code) == (f"{other}/deep%2Fer?a=1", 200)
    assert world.app.seen[-1]["query_string"] == b"a=1"
    stranger = Visitor(client)
    _, answer = await stranger.open(other, "/")
    assert answer.status_code == 404


async def test_a_page_reaches_another_port_of_its_session_without_cookies(
    world: World, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id, foreign = world.session(), world.session()
    link = world.signer.sign_preview(session_id, SignedInBy("ann"))
    own = f"http://{world.host(session_id)}"
    asked: dict[str, Any] = {"host": world.host(session_id, world.app6_port), "sec-fetch-mode": "cors"}
    page = asked | {"origin": own, "sec-fetch-site": "same-site"}
    assert (await client.get("/", headers=page)).status_code == 404, "without a sign-in at this address"
    await Visitor(client).open(world.host(session_id), f"/?_sbx={link}")
    preflight = page | {"access-control-request-method": "PUT"}
    for method, headers in [("GET", page), ("OPTIONS", preflight), ("POST", page)]:
        answer = await client.request(method, "/echo", headers=headers)
        assert answer.status_code == 200, (method, answer.text)
        assert seen(world)["origin"] == f"http://localhost:{world.app_port}"
    image = asked | {"referer": f"{own}/", "sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}
    assert (await client.get("/", headers=image)).status_code == 200
    refused = [
        asked,
        page | {"origin": f"http://{world.host(foreign)}"},
        page | {"origin": "http://evil.example"},
        page | {"sec-fetch-site": "cross-site"},
        page | {"host": world.host(foreign), "origin": own},
    ]
    for headers in refused:
        assert (await client.get("/", headers=headers)).status_code == 404, headers
    # Where all visitors have one address, it says nothing about them.
    monkeypatch.setattr(world.preview, "_by_address", False)
    assert (await client.get("/", headers=page)).status_code == 404


async def test_each_request_of_an_app_is_one_line_of_the_access_log(
    world: World, client: httpx.AsyncClient, servers: Servers
) -> None:
    session_id, reader = world.session(), AccessLogReader(servers.folder.path)
    reader.resume()
    headers = world.headers(session_id)
    for target in ("/first?secret=1", "/echo"):  # by the service's answer, then by the cookie alone
        assert (await client.post(target, headers=headers)).status_code == 200
    await client.get("/", headers={"host": world.host(session_id)})  # not answered by the app
    found: list[PreviewRequest] = []

    def complete() -> bool:
        found.extend(reader.read())
        return len(found) >= 2

    await world.eventually(complete)
    assert [(each.session_id, each.method, each.path, each.status) for each in found] == [
        (session_id, "POST", "/first", 200),
        (session_id, "POST", "/echo", 200),
    ]
    reader.close()
