"""Previews through the edge: sign-in once, then no byte passes the service; and what ends it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.acceptance.api import Api
from tests.acceptance.previews import page, preview
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.waiting import WAIT_SECONDS, wait_until

#: Listens on the container's loopback only. Answers what it was asked; /redirect and /cookies; greets each WebSocket
#: when it is opened and at everything that is sent on it.
SERVER = """
import asyncio, base64, hashlib, json, os

async def serve(reader, writer):
    while head := await reader.readuntil(b"\\r\\n\\r\\n"):
        first, *lines = head.decode().strip().split("\\r\\n")
        path = first.split()[1]
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
        if headers.get("upgrade", "").lower() == "websocket":
            key = headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
            writer.write(("HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
                          f"Sec-WebSocket-Accept: {accept}\\r\\n\\r\\n").encode())
            writer.write(b"\\x81\\x05hello")
            while await reader.read(65536):
                writer.write(b"\\x81\\x05hello")
            break
        body = b""
        if length := int(headers.get("content-length", 0)):
            body = await reader.readexactly(length)
        more = ""
        if path == "/hang-up":
            break
        if path.startswith("/redirect"):
            more = "Location: http://localhost:%s/there\\r\\n" % os.environ["PORT"]
        if path == "/cookies":
            more = "Set-Cookie: a=1; Domain=localhost; Path=/\\r\\nSet-Cookie: __sbx_preview=x; Path=/\\r\\n"
        answer = json.dumps({"path": path, "headers": headers, "body": len(body)}).encode()
        status = "302 Found" if path.startswith("/redirect") else "200 OK"
        writer.write(f"HTTP/1.1 {status}\\r\\n{more}Content-Length: {len(answer)}\\r\\n\\r\\n".encode() + answer)
    writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(os.environ["PORT"]))
    await server.serve_forever()

asyncio.run(main())
"""
PROJECT = {
    "sandbox.toml": '[backend]\nruntime = "python312"\nstart = "exec python3 server.py"\nport = 8000\n',
    "server.py": SERVER,
}


@contextmanager
def signed_in(api: Api) -> Iterator[httpx.Client]:
    """Yield a browser that is signed in to the console as the user of this API."""
    with httpx.Client(base_url=api.url, headers={"Sec-Fetch-Site": "same-origin"}, trust_env=False) as client:
        assert client.post("/", data={"token": api.token}).status_code == 303
        yield client


def launch(api: Api) -> dict[str, Any]:
    api.upload("edge", PROJECT)
    session, _ = api.launch(project_id="edge")
    assert session["status"] == "running", session
    return session


@pytest.fixture(scope="module")
def session(admin: Api) -> Iterator[dict[str, Any]]:
    made = launch(admin)
    yield made
    admin.end(made["session_id"])


def asked(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text)


def test_the_app_believes_it_is_at_localhost(admin: Api, session: dict[str, Any]) -> None:
    with preview(admin, session) as browser:
        own = f"http://{browser.headers['host']}"
        browser.cookies.set("theirs", "1")
        seen = asked(browser.post("/a%2Fb?x=1", headers={"Origin": own, "Referer": f"{own}/page"}, content=b"12"))
        assert seen["path"] == "/a%2Fb?x=1"
        assert seen["body"] == 2
        assert seen["headers"]["host"] == "localhost:8000"
        assert seen["headers"]["origin"] == "http://localhost:8000"
        assert seen["headers"]["referer"] == "http://localhost:8000/page"
        assert seen["headers"]["cookie"] == "theirs=1", "our cookie is not the app's business"
        assert seen["headers"]["x-forwarded-proto"] == "http"
        assert browser.get("/redirect").headers["location"] == f"{own}/there"
        cookies = browser.get("/cookies").headers.get_list("set-cookie")
        assert cookies == ["a=1; Path=/", "app_preview=x; Path=/"]


def test_an_apps_own_credentials_pass_and_ours_do_not(admin: Api, session: dict[str, Any]) -> None:
    host = {"Host": urlsplit(session["preview_url"]).netloc}
    with httpx.Client(base_url=admin.url, headers=host, trust_env=False) as client:
        seen = asked(client.get("/", headers={"X-API-Key": ADMIN_TOKEN, "Authorization": "Bearer the-apps"}))
        assert "x-api-key" not in seen["headers"]
        assert seen["headers"]["authorization"] == "Bearer the-apps"
        assert "x-sandbox-method" not in seen["headers"]


@pytest.mark.parametrize(
    "cookie",
    [
        "",
        "x",
        "8000.AAAAAAAAAAAAAAAAAAAAAA",
        "8000.../../../service",
        "../../service",
        "8000.%2e%2e%2fservice",
    ],
)
def test_other_cookies_open_nothing(admin: Api, session: dict[str, Any], cookie: str) -> None:
    headers = {"Host": urlsplit(session["preview_url"]).netloc, "Cookie": f"__sbx_preview={cookie}"}
    with httpx.Client(base_url=admin.url, headers=headers, trust_env=False) as client:
        answer = client.get("/")
        assert answer.status_code == 404, answer.text
        assert answer.json()["code"] == "not_found"


def test_a_cookie_of_one_session_does_not_open_another(admin: Api, session: dict[str, Any]) -> None:
    other = launch(admin)
    with preview(admin, session) as browser:
        assert browser.get("/").status_code == 200
        answer = browser.get("/", headers={"Host": urlsplit(other["preview_url"]).netloc})
        assert answer.status_code == 404
    admin.end(other["session_id"])


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Origin": "http://11111111-1111-1111-1111-111111111111.preview.localhost"},
    ],
)
def test_pages_of_others_cannot_use_the_cookie(admin: Api, session: dict[str, Any], headers: dict[str, str]) -> None:
    with preview(admin, session) as browser:
        assert browser.get("/", headers=headers).status_code == 404
        assert browser.post("/", headers=headers).status_code == 404


def test_an_app_that_hangs_up_and_one_that_is_not_there(admin: Api, session: dict[str, Any]) -> None:
    with preview(admin, session) as browser:
        answer = browser.get("/hang-up")
        assert (answer.status_code, answer.json()["code"]) == (502, "app_hung_up")
        headers = {"Host": f"9999-{session['session_id']}.preview.localhost", "X-API-Key": ADMIN_TOKEN}
        answer = browser.get("/", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (503, "preview_not_ready")
        assert "9999" in answer.json()["message"]
        answer = browser.get("/", headers=headers | {"Accept": "text/html"})
        assert answer.headers["content-type"].startswith("text/html")


async def open_websocket(api: Api, session: dict[str, Any], cookie: str) -> Any:
    host = urlsplit(session["preview_url"]).netloc
    where = urlsplit(api.url)
    headers = {"Cookie": cookie}
    return await connect(
        f"ws://{host}/ws", host=where.hostname, port=where.port, additional_headers=headers, proxy=None
    )


def answers(get: Callable[[], httpx.Response]) -> bool:
    """Whether the answer is 200, and not that of a server which is not there."""
    try:
        return get().status_code == 200
    except httpx.TransportError:
        return False


def cookie_of(browser: httpx.Client) -> str:
    return f"__sbx_preview={browser.cookies['__sbx_preview']}"


async def is_open(websocket: Any) -> bool:
    """Send something to the app, which answers on a connection that is open."""
    await websocket.send("are you there")
    async with asyncio.timeout(WAIT_SECONDS):
        return bool(await websocket.recv() == "hello")


async def until_closed(websocket: Any) -> None:
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(websocket.recv(), WAIT_SECONDS)


async def test_signing_out_and_revoking_the_token_end_their_previews(admin: Api, make_user: Callable[[], Api]) -> None:
    user = make_user()
    session = launch(user)
    tokens = admin.http.get("/api/v1/tokens").json()["items"]
    token_id = next(each["token_id"] for each in tokens if each["user_id"] == session["user_id"])
    with preview(user, session) as browser, signed_in(user) as console:
        page(browser)
        websocket = await open_websocket(user, session, cookie_of(browser))
        assert await websocket.recv() == "hello"
        with preview(user, console.get(f"/api/v1/sessions/{session['session_id']}").json()) as other:
            page(other)
            opened = await open_websocket(user, session, cookie_of(other))
            assert await opened.recv() == "hello"
            assert console.post("/logout").status_code == 303
            await until_closed(opened)
            assert other.get("/").status_code == 404
        page(browser)
        assert admin.http.delete(f"/api/v1/tokens/{token_id}").status_code == 204
        await until_closed(websocket)
        assert browser.get("/").status_code == 404
    admin.end(session["session_id"])


async def test_the_end_of_the_session_ends_its_previews(admin: Api) -> None:
    session = launch(admin)
    with preview(admin, session) as browser:
        page(browser)
        websocket = await open_websocket(admin, session, cookie_of(browser))
        assert await websocket.recv() == "hello"
        assert admin.http.delete(f"/api/v1/sessions/{session['session_id']}").status_code in (202, 204)
        await until_closed(websocket)
        admin.end(session["session_id"])
        answer = browser.get("/")
        assert (answer.status_code, answer.json()["code"]) == (410, "session_gone")


async def test_open_previews_outlive_the_service(make_service: Callable[..., Service]) -> None:
    own = make_service()
    own.start()
    api = Api(own.url, ADMIN_TOKEN)
    session = launch(api)
    with preview(api, session) as browser:
        page(browser)
        websocket = await open_websocket(api, session, cookie_of(browser))
        assert await websocket.recv() == "hello"
        own.kill()
        assert browser.get("/").status_code == 200
        origin = f"http://{browser.headers['host']}"  # as browsers send it with WebSockets, without Sec-Fetch-Site
        assert browser.get("/", headers={"Origin": origin}).status_code == 200
        assert browser.get("/", headers={"Origin": origin.replace("//", "//9999-")}).status_code == 503
        assert browser.post("/", content=b"x" * 1_000_000).json()["body"] == 1_000_000
        refused = api.http.get("/api/v1/sessions")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        own.start()
        assert browser.get("/").status_code == 200
        assert await is_open(websocket)
        await websocket.close()
        pid = own.edge().pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: answers(lambda: browser.get("/")))
    api.end(session["session_id"])
    api.http.close()
