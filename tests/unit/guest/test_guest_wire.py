"""HTTP as the guest agent reads and writes it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.guest.wire import Connection, HungUp, Refused, Request, argument


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Connection]]:
    theirs, ours = socket.socketpair()
    with theirs, ours:
        yield theirs, Connection(ours)


def send(sock: socket.socket, args: object, raw: bytes = b"", *, head: str = "POST /f HTTP/1.1") -> None:
    text = json.dumps(args).encode()
    length = len(text) + len(raw)
    lines = f"{head}\r\nContent-Length: {length}\r\nSandbox-Args-Length: {len(text)}\r\n\r\n"
    sock.sendall(lines.encode() + text + raw)


def received(connection: Connection) -> Request:
    request = connection.read_request()
    assert request is not None
    return request


def test_arguments_come_before_the_raw_bytes(pair: tuple[socket.socket, Connection]) -> None:
    theirs, connection = pair
    send(theirs, {"path": "ä"}, b"raw")
    request = received(connection)
    assert (request.method, request.target, request.args) == ("POST", "/f", {"path": "ä"})
    assert request.read_all(10) == b"raw"
    assert request.read() == b""


def test_one_request_after_the_other(pair: tuple[socket.socket, Connection]) -> None:
    theirs, connection = pair
    send(theirs, {"n": 1}, b"unread")
    send(theirs, {"n": 2})
    first = received(connection)
    first.drain()
    assert (first.args, received(connection).args) == ({"n": 1}, {"n": 2})
    theirs.close()
    assert connection.read_request() is None


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.integers(1, 60))
def test_chunks_of_any_size(parts: list[bytes], limit: int) -> None:
    theirs, ours = socket.socketpair()
    with theirs, ours:
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [b"{}", *parts])
        theirs.sendall(b"POST /f HTTP/1.1\r\nTransfer-Encoding: chunked\r\nSandbox-Args-Length: 2\r\n\r\n")
        theirs.sendall(chunks + b"0\r\n\r\n")
        send(theirs, {"next": True})
        connection = Connection(ours)
        request = received(connection)
        body = b""
        while data := request.read(limit):
            assert len(data) <= limit
            body += data
        assert body == b"".join(parts)
        assert received(connection).args == {"next": True}


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"POST /f HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /f HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /f HTTP/1.1\r\nContent-Length: 9999999999999999999\r\n\r\n",
        b"POST /f HTTP/1.1\r\nContent-Length: 4\r\nSandbox-Args-Length: 4\r\n\r\nnope",
        b"POST /f HTTP/1.1\r\nContent-Length: 2\r\nSandbox-Args-Length: 2\r\n\r\n[]",
        b"POST /f HTTP/1.1\r\nContent-Length: 1\r\nSandbox-Args-Length: 2\r\n\r\n{",
        b"POST /f HTTP/1.1\r\nContent-Length: 5000000\r\nSandbox-Args-Length: 5000000\r\n\r\n",
        b"x" * 20_000,
    ],
)
def test_nonsense_is_refused(pair: tuple[socket.socket, Connection], head: bytes) -> None:
    theirs, connection = pair
    theirs.sendall(head)
    with pytest.raises(Refused):
        connection.read_request()


def test_a_body_that_breaks_off(pair: tuple[socket.socket, Connection]) -> None:
    theirs, connection = pair
    theirs.sendall(b"POST /f HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
    theirs.close()
    request = received(connection)
    with pytest.raises(HungUp):
        request.drain()


def test_a_body_longer_than_is_taken(pair: tuple[socket.socket, Connection]) -> None:
    theirs, connection = pair
    send(theirs, {}, b"x" * 100)
    with pytest.raises(Refused) as refusal:
        received(connection).read_all(99)
    assert refusal.value.status == 413


def test_answer_carries_json_and_raw_bytes(pair: tuple[socket.socket, Connection]) -> None:
    theirs, connection = pair
    send(theirs, {})
    received(connection).answer({"a": "ä"}, b"one", bytearray(b"two"))
    head, _, body = theirs.recv(1000).partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"HTTP/1.1 200 OK"
    assert b"content-length: 20" in head
    assert body == b'{"a":"\\u00e4"}onetwo'


def test_arguments_are_checked() -> None:
    assert argument({"n": 1}, "n", int) == 1
    assert argument({}, "n", int, None) is None
    assert argument({"yes": True}, "yes", bool) is True
    for args in ({}, {"n": "1"}, {"n": True}, {"n": None}):
        with pytest.raises(Refused):
            argument(args, "n", int)
