"""What is read of an app's answer, however broken it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from sandbox.launch.answers import rank
from sandbox.launch.http_probe import MAX_BODY_BYTES, MAX_HEAD_BYTES, Answer, Entrance, Streams, visit
from sandbox.launch.port_search import printed_addresses
from tests.fakes.processes import Connections, Handler


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    made = Connections()
    yield made
    await made.close()


def sends(*pieces: bytes, hold: bool = False) -> Handler:
    """A server that sends this to every client, and then closes the connection or holds it open."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if hold:
                await asyncio.Event().wait()

    return handle


async def get(connections: Connections, handler: Handler, seconds: float = 5.0) -> Answer:
    async def connect() -> Streams:
        return await asyncio.open_connection(sock=connections.open(handler))

    return await visit(Entrance(connect, 8000, "localhost:8000"), "/", seconds)


async def test_an_answer_is_read_to_its_length(connections: Connections) -> None:
    answer = await get(
        connections, sends(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok and more", hold=True)
    )
    assert (answer.status, answer.body, answer.headers["x-a"]) == (200, b"ok", "b")


@pytest.mark.parametrize("head", [b"HTTP/1.0 204\r\n\r\n", b"HTTP/1.1 204 No Content\n\n", b"HTTP/2 204 \r\n\r\n"])
async def test_sloppy_status_lines_are_read(connections: Connections, head: bytes) -> None:
    assert (await get(connections, sends(head))).status == 204


@pytest.mark.parametrize(
    "answer", [b"220 ready\r\n", b"\x15\x03\x01\x00\x02\x02\x46", b"HTTP/1.1 fine\r\n\r\n", b"x" * 200_000]
)
async def test_what_is_not_http_is_another_protocol(connections: Connections, answer: bytes) -> None:
    found = await get(connections, sends(answer))
    assert (found.status, found.other_protocol, rank(found)) == (None, True, 0)


async def test_a_connection_that_is_closed_at_once(connections: Connections) -> None:
    found = await get(connections, sends())
    assert (found.status, found.hung_up, found.other_protocol) == (None, True, False)


async def test_a_server_that_says_nothing_is_given_up(connections: Connections) -> None:
    found = await get(connections, sends(hold=True), seconds=0.1)
    assert (found.status, found.hung_up) == (None, False)


async def test_what_is_read_is_bounded(connections: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.launch.http_probe.BODY_SECONDS", 0.1)
    endless = await get(connections, sends(b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 65_536] * 4, hold=True))
    assert len(endless.body) <= MAX_BODY_BYTES
    headers = [b"X-%d: %s\r\n" % (number, b"y" * 1000) for number in range(200)]
    wordy = await get(connections, sends(b"HTTP/1.1 200 OK\r\n", *headers, b"\r\n"))
    assert wordy.status == 200
    assert sum(map(len, wordy.headers.values())) < 2 * MAX_HEAD_BYTES
    silent = await get(connections, sends(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", hold=True))
    assert (silent.status, silent.body) == (200, b"")


async def test_redirects_in_a_circle_end(connections: Connections) -> None:
    answer = await get(connections, sends(b"HTTP/1.1 302 F\r\nLocation: /\r\n\r\n"))
    assert answer.status == 302


@pytest.mark.parametrize("target", ["http://[", "//elsewhere/", "http://localhost:9999/", "/a b", "/a\x01b"])
async def test_redirects_elsewhere_are_not_followed(connections: Connections, target: str) -> None:
    answer = await get(connections, sends(b"HTTP/1.1 302 F\r\nLocation: " + target.encode() + b"\r\n\r\n"))
    assert (answer.status, answer.path) == (302, "/")


def test_the_addresses_that_apps_print() -> None:
    lines = [
        "  \x1b[32m➜\x1b[39m  Local:   \x1b[36mhttp://localhost:\x1b[1m5173\x1b[22m/base/\x1b[39m",
        "Serving on http://0.0.0.0:8080. Ready, see https://[::1]:8443/docs?a=b, or ask.",
        "Uvicorn running on http://127.0.0.1:8000 (Press CTRL+C to quit)",
        "see https://vite.dev/guide",
    ]
    assert printed_addresses(lines) == [
        (5173, "/base/"), (8080, "/"), (8443, "/docs?a=b"), (8000, "/"),
    ]  # fmt: skip
