"""Surplus cookies are removed by the edge, and those that a visitor needs stay."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from sandbox.edge.configuration import HEADER_BYTES
from sandbox.edge.cookies import MAX_BYTES, surplus_cookies
from sandbox.edge.program import find_program
from sandbox.settings import Settings

OWN = "__sbx_preview=65535.abcdefghijklmnopqrstuv.public"
SIGN_IN = f"__Host-sandbox_caller={'s' * 43}"
APP = "sessionid=0123456789abcdef0123456789abcdef"
NEEDED = f"{OWN}; {SIGN_IN}; {APP}"


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers a request with its cookies."""
    head = await reader.readuntil(b"\r\n\r\n")
    found = [line.partition(b": ")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"cookie:")]
    body = b"".join(found)
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    writer.close()


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = await asyncio.start_unix_server(_echo, tmp_path / "app.sock", limit=1024 * 1024)
    to_app = {"handler": "reverse_proxy", "upstreams": [{"dial": f"unix/{tmp_path}/app.sock"}]}
    server = {
        "listen": [f"unix/{tmp_path}/edge.sock"],
        "max_header_bytes": HEADER_BYTES,
        "routes": [*surplus_cookies(), {"handle": [to_app]}],
    }
    file = tmp_path / "caddy.json"
    file.write_text(json.dumps({"admin": {"disabled": True}, "apps": {"http": {"servers": {"edge": server}}}}))
    program, _ = find_program(Settings(home=tmp_path))
    process = subprocess.Popen([program, "run", "--config", file], stderr=subprocess.DEVNULL)
    try:
        async with asyncio.timeout(30):
            while not (tmp_path / "edge.sock").exists():
                await asyncio.sleep(0.02)
        transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "edge.sock"))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as client:
            yield client
    finally:
        process.kill()
        process.wait()
        app.close()


def cookies(number: int, length: int) -> str:
    return "; ".join(f"b{index}=".ljust(length, "x") for index in range(number))


async def test_usual_cookies_stay_as_they_are(edge: httpx.AsyncClient) -> None:
    sent = f"{NEEDED}; {cookies(2, 4096)}"
    assert (await edge.get("/", headers={"Cookie": sent})).text == sent
    assert (await edge.get("/")).text == ""


@pytest.mark.parametrize(("number", "length"), [(60, 4096), (178, 260), (240, 900)])
async def test_cookies_of_neighbours_do_not_lock_a_visitor_out(
    edge: httpx.AsyncClient, number: int, length: int
) -> None:
    bomb = cookies(number, length)
    for sent in (f"{bomb}; {NEEDED}", f"{NEEDED}; {bomb}", f"{OWN}; {bomb}; {SIGN_IN}; {APP}"):
        answer = await edge.get("/", headers={"Cookie": sent})
        assert (answer.status_code, answer.text) == (200, NEEDED)


async def test_what_a_browser_can_keep_in_short_cookies_leaves_the_needed_ones(edge: httpx.AsyncClient) -> None:
    found = (await edge.get("/", headers={"Cookie": f"{cookies(177, 64)}; {NEEDED}"})).text
    assert found.endswith(NEEDED)
    assert len(found) <= MAX_BYTES
    # More than any browser keeps.
    assert (await edge.get("/", headers={"Cookie": f"{cookies(2000, 20)}; {NEEDED}"})).text == ""
