"""HTTP/1.1 as the guest agent reads and writes it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.guest.errors import HungUp, Refused
from sandbox.guest.http1 import Connection
from sandbox.guest.request import Request, argument, read_arguments


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Connection]]:
    client, server = socket.socketpair()
    with client, server:
        server.setblocking(False)
        yield client, Connection(server)


def send(sock: socket.socket, args: object, raw: bytes = b"", *, head: str = "POST /f HTTP/1.1") -> None:
    text = json.dumps(args).encode()
    length = len(text) + len(raw)
    lines = f"{head}\r\nContent-Length: {length}\r\nSandbox-Args-Length: {len(text)}\r\n\r\n"
    sock.sendall(lines.encode() + text + raw)


async def received(connection: Connection) -> Request:
    http = await connection.read_request()
    assert http is not None
    return Request(http, await read_arguments(http))


async def test_arguments_come_before_the_raw_bytes(pair: tuple[socket.socket, Connection]) -> None:
    client, connection = pair
    send(client, {"path": "ä"}, b"raw")
    request = await received(connection)
    assert (request.http.method, request.http.target, request.args) == ("POST", "/f", {"path": "ä"})
    assert await request.read_all(10) == b"raw"
    assert await request.http.read() == b""


async def test_one_request_after_the_other(pair: tuple[socket.socket, Connection]) -> None:
    client, connection = pair
    send(client, {"n": 1}, b"unread")
    send(client, {"n": 2})
    first = await received(connection)
    await first.http.drain()
    assert (first.args, (await received(connection)).args) == ({"n": 1}, {"n": 2})
    client.close()
    assert await connection.read_request() is None


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.integers(1, 60))
async def test_chunks_of_any_size(parts: list[bytes], limit: int) -> None:
    client, server = socket.socketpair()
    with client, server:
        server.setblocking(False)
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [b"{}", *parts])
        client.sendall(b"POST /f HTTP/1.1\r\nTransfer-Encoding: chunked\r\nSandbox-Args-Length: 2\r\n\r\n")
        client.sendall(chunks + b"0\r\nTrailer: ignored\r\n\r\n")
        send(client, {"next": True})
        connection = Connection(server)
        request = await received(connection)
        body = b""
        while data := await request.http.read(limit):
            assert len(data) <= limit
            body += data
        assert body == b"".join(parts)
        assert (await received(connection)).args == {"next": True}


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"POST /f HTTP/2\r\n\r\n",
        b"POST /f HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /f HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /f HTTP/1.1\r\nContent-Length: 9999999999999999999\r\n\r\n",
        b"POST /f HTTP/1.1\r\nContent-Length: 4\r\nSandbox-Args-Length: 4\r\n\r\nnope",
        b"POST /f HTTP/1.1\r\nContent-Length: 2\r\nSandbox-Args-Length: 2\r\n\r\n[]",
        b"POST /f HTTP/1.1\r\nContent-Length: 1\r\nSandbox-Args-Length: 2\r\n\r\n{",
        b"POST /f HTTP/1.1\r\nContent-Length: 5000000\r\nSandbox-Args-Length: 5000000\r\n\r\n",
        b"POST /f HTTP/1.1\r\nTransfer-Encoding: chunked\r\nSandbox-Args-Length: 2\r\n\r\n-2\r\n{}\r\n",
        b"x" * 20_000,
    ],
)
async def test_malformed_requests_are_refused(pair: tuple[socket.socket, Connection], head: bytes) -> None:
    client, connection = pair
    client.sendall(head)
    with pytest.raises(Refused):
        await received(connection)


async def test_a_connection_is_closed_after_a_malformed_chunk(pair: tuple[socket.socket, Connection]) -> None:
    client, connection = pair
    client.sendall(b"POST /f HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n")
    request = await received(connection)
    assert not request.http.close_after
    with pytest.raises(Refused):
        await request.http.drain()
    assert request.http.close_after
    await request.http.drain()


async def test_a_body_that_breaks_off(pair: tuple[socket.socket, Connection]) -> None:
    client, connection = pair
    client.sendall(b"POST /f HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
    client.close()
    request = await received(connection)
    with pytest.raises(HungUp):
        await request.http.drain()


async def test_a_body_that_is_too_long(pair: tuple[socket.socket, Connection]) -> None:
    client, connection = pair
    send(client, {}, b"x" * 100)
    request = await received(connection)
    with pytest.raises(Refused) as refusal:
        await request.read_all(99)
    assert refusal.value.status == 413


async def test_a_client_that_waits_for_100_continue_gets_it(pair: tuple[socket.socket, Connection]) -> None:
    client, connection = pair
    client.sendall(b"POST /f HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    request = await received(connection)
    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(b"ok")
    assert await request.read_all(2) == b"ok"


async def test_answer_carries_json_and_raw_bytes(pair: tuple[socket.socket, Connection]) -> None:
    client, connection = pair
    send(client, {})
    await (await received(connection)).answer({"a": "ä"}, b"one", bytearray(b"two"))
    head, _, body = client.recv(1000).partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"HTTP/1.1 200 OK"
    assert b"content-length: 20" in head
    assert b"sandbox-args-length: 14" in head
    assert body == b'{"a":"\\u00e4"}onetwo'


def test_arguments_are_checked() -> None:
    assert argument({"n": 1}, "n", int) == 1
    assert argument({}, "n", int, None) is None
    assert argument({"yes": True}, "yes", bool) is True
    for args in ({}, {"n": "1"}, {"n": True}, {"n": None}):
        with pytest.raises(Refused):
            argument(args, "n", int)
