"""HTTP through the proxy, between real servers."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.waiting import WAIT_SECONDS

MIB = 1024 * 1024


async def test_the_app_answers_on_the_host_of_its_session(world, client):
    session_id = world.session()
    answer = await client.get("/?a=1&b=%2F", headers=world.headers(session_id))
    assert (answer.status_code, answer.text) == (200, "hello from the app")
    assert answer.headers["x-app"] == "1"
    assert answer.headers["x-request-id"]
    assert world.app.seen[0]["query_string"] == b"a=1&b=%2F"
    seen = dict(world.app.seen[0]["headers"])
    assert seen[b"host"] == f"localhost:{world.app_port}".encode()
    assert seen[b"x-forwarded-for"] == b"127.0.0.1"
    assert seen[b"x-forwarded-proto"] == b"http"
    assert b"cookie" not in seen


async def test_other_hosts_are_the_service_itself(world, client):
    for host in (f"localhost:{world.port}", "preview.localhost", "xpreview.localhost", "[::1]:80"):
        assert (await client.get("/", headers={"host": host})).text == "the service itself"


@pytest.mark.parametrize("form", ["plain", "hex", "upper", "final dot"])
async def test_every_spelling_of_a_session_reaches_it(world, client, form):
    session_id = world.session()
    name = {
        "plain": f"{session_id}.preview.localhost",
        "hex": f"{session_id.hex}.preview.localhost",
        "upper": f"{session_id}.preview.localhost".upper(),
        "final dot": f"{session_id}.preview.localhost.",
    }[form]
    headers = world.headers(session_id)
    answer = await client.get("/", headers=headers | {"host": name})
    if form in ("upper", "final dot"):
        usual = f"//{session_id}.preview.localhost/"
        assert (answer.status_code, answer.headers["location"]) == (308, usual)
    else:
        assert answer.text == "hello from the app"


async def test_a_port_named_by_the_host_is_looked_for_in_every_role(world, client):
    session_id = world.session(roles=("backend", "main"), port_roles={}, preview_port=None)
    answer = await client.get("/", headers=world.headers(session_id, world.app6_port))
    assert answer.text == "hello from the app"


async def test_a_server_on_ipv6_loopback_only_answers(world, client):
    session_id = world.session(preview_port=world.app6_port, port_roles={world.app6_port: "main"})
    assert (await client.get("/", headers=world.headers(session_id))).text == "hello from the app"


async def test_first_half_arrives_before_the_second_is_sent(world, client):
    async with client.stream("GET", "/two-halves", headers=world.headers(world.session())) as answer:
        chunks = answer.aiter_bytes()
        assert await anext(chunks) == b"first"
        world.app.gate.set()
        assert await anext(chunks) == b"second"


async def test_events_arrive_one_by_one(world, client):
    async with client.stream("GET", "/events", headers=world.headers(world.session())) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        lines = answer.aiter_lines()
        assert await anext(lines) == "data: 0"
        world.app.gate.set()
        assert [line async for line in lines if line] == ["data: 1", "data: 2"]


async def test_a_large_download_is_whole(world, client):
    total = 0
    async with client.stream("GET", "/large", headers=world.headers(world.session())) as answer:
        assert answer.headers["content-length"] == str(100 * MIB)
        async for chunk in answer.aiter_raw():
            total += len(chunk)
    assert total == 100 * MIB


async def test_a_client_that_stops_reading_stops_the_app(world):
    """What was sent and not taken is all in buffers: a few MiB, not the 100 MiB the app wants to send."""
    session_id = world.session()
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    head = f"GET /large HTTP/1.1\r\nhost: {world.host(session_id)}\r\ncookie: {world.cookie(session_id)}\r\n\r\n"
    writer.write(head.encode())
    await reader.readuntil(b"\r\n\r\n")
    before = 0
    while not 0 < before == world.app.produced:
        before = world.app.produced
        await asyncio.sleep(0.3)
    assert before < 32 * MIB
    await reader.readexactly(100 * MIB)
    writer.close()


@pytest.mark.parametrize("known_length", [True, False])
async def test_an_upload_streams_to_the_app(world, client, known_length):
    session_id, half_sent = world.session(), asyncio.Event()

    async def body():
        for _ in range(32):
            yield bytes(MIB)
        await world.eventually(lambda: world.app.received >= 16 * MIB)
        half_sent.set()
        for _ in range(32):
            yield bytes(MIB)

    length = {"content-length": str(64 * MIB)} if known_length else {}
    answer = await client.post("/echo", content=body(), headers=world.headers(session_id) | length)
    assert half_sent.is_set()
    assert answer.text.startswith(f"POST {64 * MIB} ")
    seen = dict(world.app.seen[0]["headers"])
    assert seen.get(b"content-length") == (str(64 * MIB).encode() if known_length else None)
    assert seen.get(b"transfer-encoding") == (None if known_length else b"chunked")


async def test_a_client_that_leaves_ends_the_apps_work(world, client):
    async with client.stream("GET", "/forever", headers=world.headers(world.session())) as answer:
        await anext(answer.aiter_raw())
    await world.eventually(lambda: world.app.cancelled == 1)


async def test_a_client_that_leaves_before_the_answer_ends_the_apps_work(world, client):
    with pytest.raises(httpx.ReadTimeout):
        await client.get("/waits", headers=world.headers(world.session()), timeout=0.5)
    await world.eventually(lambda: world.app.cancelled == 1)


async def test_an_upload_that_breaks_off_is_never_whole_to_the_app(world):
    session_id = world.session()
    for framing in (b"content-length: 1000", b"transfer-encoding: chunked"):
        world.app.cancelled = 0
        _, writer = await asyncio.open_connection("127.0.0.1", world.port)
        head = f"POST /echo HTTP/1.1\r\nhost: {world.host(session_id)}\r\ncookie: {world.cookie(session_id)}\r\n"
        writer.write(head.encode() + framing + b"\r\n\r\n5\r\nhello\r\n")
        await writer.drain()
        await world.eventually(lambda: world.app.received > 0)
        writer.transport.abort()
        await world.eventually(lambda: world.app.cancelled == 1)
        world.app.received = 0


async def test_an_answer_that_breaks_off_is_never_whole_to_the_client(world, client):
    async with client.stream("GET", "/breaks", headers=world.headers(world.session())) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            await answer.aread()


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "PATCH", "PROPFIND"])
async def test_methods_pass(world, client, method):
    answer = await client.request(method, "/echo", headers=world.headers(world.session()))
    assert answer.status_code == 200
    assert answer.text == ("" if method == "HEAD" else f"{method} 0 ")
    assert world.app.seen[0]["method"] == method


async def test_answers_without_a_body(world, client):
    headers = world.headers(world.session())
    assert (await client.get("/nothing", headers=headers)).status_code == 204
    same = await client.get("/same", headers=headers)
    assert (same.status_code, same.headers["etag"]) == (304, '"v1"')
    head = await client.head("/large", headers=headers)
    assert (head.headers["content-length"], head.content) == (str(100 * MIB), b"")
    # The same connection serves what comes after.
    assert (await client.get("/", headers=headers)).text == "hello from the app"


async def test_redirects_and_repeated_headers_pass_untouched(world, client):
    answer = await client.get("/away", headers=world.headers(world.session()))
    assert answer.headers["location"] == "http://elsewhere.example/x"
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]


async def test_compressed_bytes_pass_untouched(world, client):
    headers = world.headers(world.session(), accept_encoding="gzip, br")
    async with client.stream("GET", "/zipped", headers=headers) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        assert b"".join([chunk async for chunk in answer.aiter_raw()]) == b"not really gzip \x00\xff"
    assert dict(world.app.seen[0]["headers"])[b"accept-encoding"] == b"gzip, br"


async def test_a_kept_connection_that_the_app_closed_is_replaced(world, client):
    session_id = world.session()

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        world.sessions.agents[session_id, "main"].addresses[port] = "127.0.0.1"
        headers = world.headers(session_id, port)
        for _ in range(5):
            answer = await client.get("/", headers=headers)
            assert (answer.status_code, answer.text) == (200, "ok")


async def test_requests_with_a_cookie_do_not_pass_the_service(world, client):
    session_id = world.session()
    headers = world.headers(session_id)
    assert (await client.get("/", headers=headers)).status_code == 200
    resolved = world.sessions.resolved
    await asyncio.sleep(0.1)
    world.sessions.failure = ConnectionError("no database")
    for _ in range(5):
        assert (await client.get("/", headers=headers)).status_code == 200
    assert world.sessions.resolved == resolved


async def test_a_grant_that_ends_closes_its_open_connections(world, client):
    session_id = world.session()
    headers = world.headers(session_id)
    async with client.stream("GET", "/forever", headers=headers) as answer:
        parts = answer.aiter_raw()
        await anext(parts)
        world.store.ended |= set(world.store.grants)
        async with asyncio.timeout(WAIT_SECONDS):
            with pytest.raises(httpx.TransportError):
                _ = [None async for _ in parts]
    assert (await client.get("/", headers=headers)).status_code == 404
