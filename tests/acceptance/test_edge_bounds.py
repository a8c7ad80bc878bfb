"""Clients without a token that hold connections cost the service nothing, and hold up no others."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import psutil
import pytest

from tests.acceptance.api import Api
from tests.acceptance.service import Service

IDLE = 2000
HALF_SENT = 200
MIB = 1024 * 1024
HALF_HEAD = b"GET /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nX-Half:"
HALF_BODY = (
    b"POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b'Content-Length: 1000\r\n\r\n{"project_id":'
)


def processes(service: Service) -> list[psutil.Process]:
    """The service and its edge."""
    assert service.process is not None
    edge = service.edge().pid()
    assert edge is not None
    return [psutil.Process(service.process.pid), psutil.Process(edge)]


def memory(service: Service) -> int:
    return sum(int(process.memory_info().rss) for process in processes(service))


@contextlib.contextmanager
def connections(service: Service, count: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=30))
            if sent:
                sock.sendall(sent)
            opened.append(sock)
        yield opened


def test_idle_and_half_sent_requests_hold_up_no_others(service: Service, admin: Api) -> None:
    own = processes(service)[0]
    for _ in range(20):
        admin.http.get("/api/v1/sessions").raise_for_status()
    before, handles = memory(service), own.num_fds()
    with (
        connections(service, IDLE),
        connections(service, HALF_SENT // 2, HALF_BODY),
        connections(service, HALF_SENT // 2, HALF_HEAD) as heads,
    ):
        for _ in range(50):
            admin.http.get("/api/v1/sessions").raise_for_status()
        assert memory(service) - before < 100 * MIB
        assert own.num_fds() - handles < HALF_SENT // 4, "the service must not see requests that are not complete"
        for sock in heads[:3]:
            sock.settimeout(90)
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1000) == b"", "the edge ends a request whose head does not arrive"


@pytest.mark.parametrize("length", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_a_refused_body_is_not_waited_for(service: Service, length: str) -> None:
    head = f"POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as sock:
        sock.sendall(head.encode() + b"186a0\r\n" + b" " * 100_000)
        received = b""
        while piece := sock.recv(65536):
            received += piece
    assert received.startswith(b"HTTP/1.1 401 ")


def test_a_body_in_small_pieces_is_answered_once_it_is_whole(service: Service, admin: Api) -> None:
    body = b'{"project_id": "is not there"}'
    head = (
        f"POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: {admin.http.headers['authorization']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as sock:
        sock.sendall(head.encode())
        for byte in body:
            sock.sendall(bytes([byte]))
        assert sock.recv(12).startswith(b"HTTP/1.1 4")
