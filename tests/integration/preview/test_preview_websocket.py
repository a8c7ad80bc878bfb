"""WebSockets through the edge, between real servers."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sandbox.domain.caller import SignedInBy
from sandbox.domain.session import SessionStatus

MIB = 1024 * 1024


def open_socket(world, session_id, path="/echo", *, cookie=True, host=None, headers=None, **options):
    return connect(
        f"ws://{host or world.host(session_id)}{path}",
        host="127.0.0.1",
        port=world.port,
        additional_headers=({"cookie": world.cookie(session_id)} if cookie else {}) | (headers or {}),
        proxy=None,
        max_size=None,
        **options,
    )


async def test_messages_pass_both_ways(world):
    session_id = world.session()
    async with open_socket(world, session_id, "/echo?room=1&_sbx=x") as opened:
        await opened.send("héllo")
        assert await opened.recv() == "héllo"
        await opened.send(b"\x00\xff")
        assert await opened.recv() == b"\x00\xff"
        await opened.send("")
        assert await opened.recv() == ""
        await opened.send(b"")
        assert await opened.recv() == b""
        assert opened.response.headers["set-cookie"] == "ws=1"
    scope = world.app.seen[0]
    seen = dict(scope["headers"])
    assert (scope["path"], scope["query_string"]) == ("/echo", b"room=1")
    assert seen[b"host"] == f"localhost:{world.app_port}".encode()
    assert b"cookie" not in seen


async def test_a_message_of_many_megabytes_passes(world):
    message = bytes(range(256)) * (10 * MIB // 256)
    async with open_socket(world, world.session()) as opened:
        await opened.send([message[:MIB], message[MIB:]])
        assert await opened.recv() == message


async def test_a_subprotocol_is_the_apps_choice(world):
    async with open_socket(world, world.session(), subprotocols=["vite-ping", "vite-hmr"]) as opened:
        assert opened.subprotocol == "vite-hmr"
    assert world.app.seen[0]["subprotocols"] == ["vite-ping", "vite-hmr"]


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 3000, 4321])
async def test_the_apps_close_code_reaches_the_client(world, code):
    async with open_socket(world, world.session()) as opened:
        await opened.send(f"close {code}")
        with pytest.raises(ConnectionClosed) as closed:
            await opened.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, "as asked")


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4321])
async def test_the_clients_close_code_reaches_the_app(world, code):
    async with open_socket(world, world.session()) as opened:
        await opened.close(code, "my reason")
    await world.eventually(lambda: world.app.seen[-1] == {"closed": code, "reason": "my reason"})


async def test_a_client_that_vanishes_is_gone_for_the_app(world):
    opened = await open_socket(world, world.session())
    opened.transport.abort()
    await world.eventually(lambda: world.app.seen[-1].get("closed") in (1001, 1005, 1006))


async def test_the_apps_refusal_reaches_the_client(world):
    with pytest.raises(InvalidStatus) as refused:
        await open_socket(world, world.session(), "/refuse")
    assert (refused.value.response.status_code, refused.value.response.body) == (401, b"not you")
    assert refused.value.response.headers["x-why"] == "because"


async def test_nothing_without_a_cookie_or_with_that_of_another_session(world):
    session_id, other = world.session(), world.session()
    for headers in ({}, {"cookie": world.cookie(other)}, {"cookie": "__sbx_preview=forged"}):
        with pytest.raises(InvalidStatus) as refused:
            await open_socket(world, session_id, cookie=False, headers=headers)
        assert refused.value.response.status_code == 404
    assert world.app.seen == []


async def test_a_link_or_a_token_opens_a_socket_and_stays_here(world):
    session_id = world.session()
    link = world.signer.sign_preview(session_id, SignedInBy("ann"))
    async with open_socket(world, session_id, f"/echo?_sbx={link}&a=1", cookie=False):
        pass
    async with open_socket(world, session_id, cookie=False, headers={"authorization": "Bearer sbx_ann"}):
        pass
    handshakes = [scope for scope in world.app.seen if "headers" in scope]
    assert handshakes[0]["query_string"] == b"a=1"
    assert b"authorization" not in dict(handshakes[1]["headers"])


async def test_a_page_of_another_sandbox_cannot_use_the_cookie(world):
    session_id, attacker = world.session(), world.session()
    own = f"http://{world.host(session_id)}"
    for origin in (f"http://{world.host(attacker)}", "http://evil.example", "null"):
        with pytest.raises(InvalidStatus) as refused:
            await open_socket(world, session_id, origin=origin)
        assert refused.value.response.status_code == 404
    assert world.app.seen == []
    async with open_socket(world, session_id, origin=own):
        pass
    assert dict(world.app.seen[0]["headers"])[b"origin"] == f"http://localhost:{world.app_port}".encode()


async def test_a_session_without_an_answering_app_says_why(world):
    over = world.session(status=SessionStatus.TERMINATED)
    silent = world.session(preview_port=1, port_roles={1: "main"})
    for session_id, status in ((over, 410), (silent, 503)):
        with pytest.raises(InvalidStatus) as refused:
            await open_socket(world, session_id)
        assert refused.value.response.status_code == status


async def test_a_page_that_is_no_websocket_is_refused_as_the_app_does(world):
    with pytest.raises(InvalidStatus) as refused:
        await open_socket(world, world.session(), "/plain")
    assert refused.value.response.status_code in (400, 403, 500)


async def test_many_sockets_echo_side_by_side(world):
    session_id = world.session()

    async def talk(number: int) -> None:
        async with open_socket(world, session_id) as opened:
            for message in range(20):
                await opened.send(f"{number} {message}")
                assert await opened.recv() == f"{number} {message}"

    async with asyncio.TaskGroup() as group:
        for number in range(15):
            group.create_task(talk(number))
