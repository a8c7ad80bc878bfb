"""Requests and answers that mean harm."""

from __future__ import annotations

import asyncio

import pytest

from tests.waiting import WAIT_SECONDS


async def raw(port: int, request: bytes) -> bytes:
    """Send the bytes and return what is answered until the edge closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        await writer.drain()
        async with asyncio.timeout(WAIT_SECONDS):
            return await reader.read()
    finally:
        writer.close()


def request(world, session_id, extra: bytes, *, method: bytes = b"POST", target: bytes = b"/echo") -> bytes:
    return b"".join(
        [
            method + b" " + target + b" HTTP/1.1\r\nhost: " + world.host(session_id).encode() + b"\r\ncookie: ",
            world.cookie(session_id).encode() + b"\r\n" + extra,
        ]
    )


@pytest.mark.parametrize(
    "framing",
    [
        b"content-length: 5\r\ntransfer-encoding: chunked",
        b"transfer-encoding: chunked\r\ncontent-length: 5",
        b"content-length: 5\r\ncontent-length: 6",
        b"content-length: 5\r\ncontent-length: 5",
        b"content-length: +5",
        b"content-length: 5, 5",
        b"transfer-encoding: identity, chunked",
        b"transfer-encoding: xchunked",
        b"transfer-encoding : chunked",
        b"transfer-encoding: chunked\r\ntransfer-encoding: identity",
        b" content-length: 5",
    ],
)
async def test_a_body_whose_end_is_ambiguous_never_reaches_the_app(world, framing):
    session_id = world.session()
    smuggled = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answer = await raw(world.port, request(world, session_id, framing + b"\r\n\r\n" + smuggled))
    assert answer.startswith(b"HTTP/1.1 "), answer[:200]
    assert all(scope["path"] == "/echo" for scope in world.app.seen), "one request became two"


async def test_a_header_value_with_a_bare_newline_adds_no_header(world):
    session_id = world.session()
    for newline in (b"\n", b"\r", b"\x00"):
        headers = b"connection: close\r\nx-a: 1" + newline + b"x-smuggled: 1\r\n\r\n"
        await raw(world.port, request(world, session_id, headers, method=b"GET"))
    for (
        scope
    ) in world.app.seen:  # a server in front may read a bare newline as a line's end, but then so did our checks
        assert all(b"\n" not in value and b"\r" not in value and b"\0" not in value for _, value in scope["headers"])


async def test_encoded_newlines_in_the_target_stay_encoded(world, client):
    session_id = world.session()
    answer = await client.get("/%0d%0aHost:%20evil/?q=%0d%0a", headers=world.headers(session_id))
    assert answer.status_code == 200
    assert world.app.seen[0]["raw_path"] == b"/%0d%0aHost:%20evil/"
    assert world.app.seen[0]["query_string"] == b"q=%0d%0a"


async def test_bytes_beyond_ascii_in_the_target_are_encoded(world):
    session_id = world.session()
    answer = await raw(
        world.port, request(world, session_id, b"connection: close\r\n\r\n", method=b"GET", target="/ü?q=é".encode())
    )
    if answer.split(b" ", 2)[1] == b"200":
        assert world.app.seen[0]["raw_path"] == b"/%C3%BC"
        assert world.app.seen[0]["query_string"] == b"q=%C3%A9"
    else:
        assert answer.split(b" ", 2)[1] == b"400"


async def test_two_hosts_are_refused(world):
    session_id, foreign = world.session(), world.session(user_id="bob")
    twice = f"connection: close\r\nhost: {world.host(foreign)}\r\n\r\n".encode()
    answer = await raw(world.port, request(world, session_id, twice, method=b"GET"))
    assert answer.split(b" ", 2)[1] == b"400"
    assert world.app.seen == []


async def test_what_a_client_says_of_its_own_way_here_is_not_believed(world, client):
    session_id = world.session()
    claimed = {
        "x-forwarded-for": "6.6.6.6",
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "https",
        "forwarded": "for=6.6.6.6",
        "x-real-ip": "6.6.6.6",
        "connection": "keep-alive, x-secret",
        "x-secret": "1",
        "proxy-authorization": "Basic eA==",
        "keep-alive": "timeout=1",
    }
    await client.get("/", headers=world.headers(session_id) | claimed)
    names = [name for name, _ in world.app.seen[0]["headers"]]
    seen = dict(world.app.seen[0]["headers"])
    assert seen[b"x-forwarded-for"] == b"127.0.0.1"
    assert seen[b"host"] == f"localhost:{world.app_port}".encode()
    assert seen[b"x-forwarded-proto"] == b"http"
    assert seen[b"x-forwarded-host"] == seen[b"host"]
    assert seen[b"x-forwarded-port"] == str(world.app_port).encode()
    assert seen[b"forwarded"] == f'for="127.0.0.1";host="{world.host(session_id)}";proto=http'.encode()
    assert not {b"x-real-ip", b"x-secret", b"proxy-authorization"} & set(names)
    assert len(names) == len(set(names))


async def test_headers_beyond_the_limit_are_refused(world, client):
    session_id = world.session()
    many = {f"x-{number}": "v" * 4000 for number in range(80)}
    answer = await client.get("/", headers=world.headers(session_id) | many)
    assert answer.status_code in (400, 431)
    assert world.app.seen == []


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nx: a\x00b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 300_000,
    ],
)
async def test_an_app_that_does_not_speak_http_is_named_as_the_cause(world, client, answer):
    session_id = world.session()

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        world.sessions.agents[session_id, "main"].addresses[port] = "127.0.0.1"
        response = await client.get("/", headers=world.headers(session_id, port))
    assert (response.status_code, response.json()["code"]) == (502, "app_hung_up")
    assert response.json()["hint"]
