"""The edge's process: started once, found again, started again when it ends, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sandbox.client import resolve
from sandbox.edge.configuration import edge_configuration
from sandbox.edge.process import EdgeProcess
from sandbox.edge.supervisor import EdgeSupervisor
from sandbox.errors import Conflict
from sandbox.settings import Settings
from tests.ports import reserve_port
from tests.waiting import WAIT_SECONDS, wait_until


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, port=reserve_port())


@pytest.fixture
def edge(settings: Settings) -> Iterator[EdgeProcess]:
    process = EdgeProcess(settings)
    yield process
    process.stop()


async def answers(settings: Settings) -> bool:
    try:
        return (await ask(settings)).status_code == 503
    except httpx.TransportError:
        return False


async def ask(settings: Settings) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://127.0.0.1:{settings.port}/api/v1/sessions")


async def test_without_the_service_it_answers_503_with_retry_after(settings: Settings, edge: EdgeProcess) -> None:
    edge.ensure(edge_configuration(settings))
    answer = await ask(settings)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "service_unavailable"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_one_that_runs_is_taken_over_with_the_new_configuration(settings: Settings, edge: EdgeProcess) -> None:
    configuration = edge_configuration(settings)
    pid = edge.ensure(configuration)
    server = configuration["apps"]["http"]["servers"]["edge"]
    server["routes"] = [{"handle": [{"handler": "static_response", "body": "new"}]}]
    assert EdgeProcess(settings).ensure(configuration) == pid
    assert httpx.get(f"http://127.0.0.1:{settings.port}/", trust_env=False).text == "new"


def test_stopping_frees_the_port_and_is_success_when_it_does_not_run(settings: Settings, edge: EdgeProcess) -> None:
    pid = edge.ensure(edge_configuration(settings))
    assert edge.stop() == pid
    assert edge.stop() is None
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", settings.port))


async def test_an_edge_that_is_killed_is_started_again(settings: Settings, edge: EdgeProcess) -> None:
    supervisor = EdgeSupervisor(edge, edge_configuration(settings))
    await supervisor.start()
    try:
        killed = edge.pid()
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(WAIT_SECONDS):
            while edge.pid() in (None, killed) or not await answers(settings):
                await asyncio.sleep(0.05)
    finally:
        await supervisor.close()


def test_a_port_that_is_taken_is_the_error(settings: Settings, edge: EdgeProcess) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", settings.port))
        other.listen()
        with pytest.raises(Conflict, match="cannot listen"):
            edge.ensure(edge_configuration(settings))


def test_only_the_owner_can_reach_its_sockets(settings: Settings, edge: EdgeProcess) -> None:
    edge.ensure(edge_configuration(settings))
    with edge.folder.listen():
        folder = edge.folder.path
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {(folder / name).stat().st_mode & 0o777 for name in ("admin.sock", "service.sock")} == {0o600}


def test_tls_by_its_own_authority_with_http_2(settings: Settings, edge: EdgeProcess) -> None:
    settings = settings.model_copy(update={"tls": "internal"})
    edge.ensure(edge_configuration(settings))
    root = edge.folder.path / "storage" / "pki" / "authorities" / "local" / "root.crt"
    context = ssl.create_default_context(cafile=str(root))
    context.set_alpn_protocols(["h2"])

    def is_certified() -> bool:
        """The certificates are made in the background."""
        with contextlib.suppress(ssl.SSLError), socket.create_connection(("127.0.0.1", settings.port)) as connection:
            context.wrap_socket(connection, server_hostname="localhost").close()
            return True
        return False

    wait_until(is_certified)
    for name in ("localhost", "0b5e1c9e-7d2f-4a57-9d1c-3f9a6f1e2b44.preview.localhost"):
        with (
            socket.create_connection(("127.0.0.1", settings.port)) as connection,
            context.wrap_socket(connection, server_hostname=name) as secured,
        ):
            assert secured.selected_alpn_protocol() == "h2"
    environ = {"SANDBOX_HOME": str(settings.home), "SANDBOX_PORT": str(settings.port), "SANDBOX_TLS": "internal"}
    client = resolve(environ=environ)
    with httpx.Client(base_url=client.base_url, verify=client.tls(), trust_env=False) as browser:
        assert browser.get("/").status_code == 503, "clients on this machine trust the authority"


def test_half_a_head_and_a_head_that_is_too_long_are_not_waited_for(settings: Settings, edge: EdgeProcess) -> None:
    configuration = edge_configuration(settings)
    server = configuration["apps"]["http"]["servers"]["edge"]
    assert server["read_header_timeout"] == "10s"
    server["read_header_timeout"] = "1s"
    edge.ensure(configuration)
    with socket.create_connection(("127.0.0.1", settings.port)) as half:
        half.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        half.settimeout(WAIT_SECONDS)
        assert half.recv(1000) == b""
    with socket.create_connection(("127.0.0.1", settings.port)) as long:
        long.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 300_000 + b"\r\n\r\n")
        assert long.recv(100).startswith(b"HTTP/1.1 431 ")
