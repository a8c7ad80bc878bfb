"""OTLP exports of apps: accepted on the loopback, fetched by the service, and held until it has answered them."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from sandbox.engine.guest import Exports
from sandbox.engine.guest_client.client import GuestClient
from sandbox.engine.guest_client.http import UnixConnector
from sandbox.engine.guest_data import Export, ExportAnswer
from sandbox.errors import GuestError
from sandbox.guest import otlp_server
from sandbox.guest.export_queue import WAITING_LIMIT
from tests.integration.guest.running_guests import RunningGuest, start_guest
from tests.waiting import WAIT_SECONDS

PROTOBUF = {"Content-Type": "application/x-protobuf", "Authorization": "Bearer t"}


@pytest.fixture
async def exporter(running_guest: RunningGuest) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    url = f"http://127.0.0.1:{running_guest.exports_port}"
    async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False, limits=limits) as http:
        yield http


@contextlib.asynccontextmanager
async def collecting(client: GuestClient) -> AsyncIterator[Exports]:
    exports = await client.exports()
    try:
        yield exports
    finally:
        await exports.close()


def ok(export: Export, body: bytes = b"") -> ExportAnswer:
    return ExportAnswer(export.number, 200, export.media_type, body)


async def test_a_request_is_held_until_it_is_answered(exporter: httpx.AsyncClient, client: GuestClient) -> None:
    async with collecting(client) as exports:
        for body, headers in ((b"one", PROTOBUF), (gzip.compress(b"two"), PROTOBUF | {"Content-Encoding": "gzip"})):
            sent = asyncio.create_task(exporter.post("/v1/traces?x=1", content=body, headers=headers))
            (export,) = await exports.fetch()
            assert (export.path, export.media_type, export.body) == ("/v1/traces", "application/x-protobuf", body)
            assert (export.encoding, export.authorization) == (headers.get("Content-Encoding", ""), "Bearer t")
            assert not sent.done()
            await exports.answer([ExportAnswer(export.number, 429, "application/json", b"later", 7)])
            answer = await sent
            assert (answer.status_code, answer.content, answer.headers["retry-after"]) == (429, b"later", "7")
            assert answer.headers["content-type"] == "application/json"


async def test_a_chunked_body(exporter: httpx.AsyncClient, client: GuestClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(300):
            yield b"%d," % number
            if number % 100 == 0:
                await asyncio.sleep(0)

    async with collecting(client) as exports:
        sent = asyncio.create_task(exporter.post("/v1/logs", content=pieces(), headers=PROTOBUF))
        (export,) = await exports.fetch()
        assert export.body == b"".join([b"%d," % number for number in range(300)])
        await exports.answer([ok(export)])
        assert (await sent).status_code == 200


async def test_waiting_requests_are_fetched_together_and_their_number_is_limited(
    exporter: httpx.AsyncClient, client: GuestClient
) -> None:
    sent = [
        asyncio.create_task(exporter.post("/v1/logs", content=b"%d" % n, headers=PROTOBUF))
        for n in range(WAITING_LIMIT + 5)
    ]
    refused, waiting = await asyncio.wait(sent, return_when=asyncio.FIRST_COMPLETED)
    while len(refused) < 5:
        more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        refused |= more
    for answer in refused:
        assert (answer.result().status_code, answer.result().headers["retry-after"]) == (503, "2")
        assert b"too many" in answer.result().content
    async with collecting(client) as exports:
        batch = await exports.fetch()
        assert len(batch) == WAITING_LIMIT
        await exports.answer([ok(export, export.body) for export in batch])
        answers = await asyncio.gather(*waiting)
    # Each request got its own answer.
    assert {answer.content for answer in answers} == {export.body for export in batch}
    assert {answer.status_code for answer in answers} == {200}


async def test_a_body_that_is_too_large_is_refused_and_the_connection_stays_open(
    exporter: httpx.AsyncClient, client: GuestClient
) -> None:
    async with collecting(client) as exports:
        large = await exporter.post("/v1/logs", content=b"x" * (otlp_server.BODY_LIMIT + 1), headers=PROTOBUF)
        assert large.status_code == 413
        sent = asyncio.create_task(exporter.post("/v1/logs", content=b"small", headers=PROTOBUF))
        (export,) = await exports.fetch()
        await exports.answer([ok(export)])
        assert (await sent).status_code == 200


async def test_large_bodies_are_sent_in_several_batches(exporter: httpx.AsyncClient, client: GuestClient) -> None:
    bodies = {bytes([n]) * (1 << 20) for n in range(1, 11)}
    sent = [asyncio.create_task(exporter.post("/v1/logs", content=body, headers=PROTOBUF)) for body in bodies]
    fetched: set[bytes] = set()
    batches = 0
    async with collecting(client) as exports:
        while fetched != bodies:
            batch = await exports.fetch()
            fetched |= {export.body for export in batch}
            batches += 1
            assert len(batch) <= 4
            await exports.answer([ok(export) for export in batch])
    assert batches >= 3
    assert {answer.status_code for answer in await asyncio.gather(*sent)} == {200}


async def test_without_a_collector_exporters_are_asked_to_retry(exporter: httpx.AsyncClient) -> None:
    protobuf, json = await asyncio.gather(
        exporter.post("/v1/traces", content=b"a", headers=PROTOBUF),
        exporter.post("/v1/traces", content=b"{}", headers={"Content-Type": "application/json"}),
    )
    for answer in (protobuf, json):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "does not take records" in json.json()["message"]
    assert b"does not take records" in protobuf.content


async def test_unanswered_requests_of_an_ended_connection_are_sent_over_the_next(
    exporter: httpx.AsyncClient, client: GuestClient
) -> None:
    async with collecting(client) as exports:
        first = asyncio.create_task(exporter.post("/v1/traces", content=b"first", headers=PROTOBUF))
        assert [export.body for export in await exports.fetch()] == [b"first"]
        second = asyncio.create_task(exporter.post("/v1/traces", content=b"second", headers=PROTOBUF))
    async with collecting(client) as exports:
        bodies: list[bytes] = []
        while len(bodies) < 2:
            batch = await exports.fetch()
            bodies += [export.body for export in batch]
            await exports.answer([ok(export) for export in batch])
    assert sorted(bodies) == [b"first", b"second"]
    assert [answer.status_code for answer in await asyncio.gather(first, second)] == [200, 200]


async def test_only_the_newer_of_two_collectors_is_served(exporter: httpx.AsyncClient, client: GuestClient) -> None:
    """The older one may be frozen with requests that it has fetched and not answered."""
    async with collecting(client) as earlier:
        first = asyncio.create_task(exporter.post("/v1/traces", content=b"first", headers=PROTOBUF))
        await earlier.arrived()
        async with collecting(client) as later:
            (export,) = await later.fetch()
            await later.answer([ok(export, b"later")])
            assert (await first).content == b"later"
            await earlier.fetch()  # this had been sent before
            with pytest.raises(GuestError):
                await earlier.arrived()
            second = asyncio.create_task(exporter.post("/v1/traces", content=b"second", headers=PROTOBUF))
            (export,) = await later.fetch()
            await later.answer([ok(export)])
            assert (await second).status_code == 200


async def test_the_request_of_an_exporter_that_hung_up_is_dropped(
    exporter: httpx.AsyncClient, client: GuestClient
) -> None:
    gone = asyncio.create_task(exporter.post("/v1/logs", content=b"gone", headers=PROTOBUF))
    async with collecting(client) as exports:
        assert [export.body for export in await exports.fetch()] == [b"gone"]
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone
    sent = asyncio.create_task(exporter.post("/v1/logs", content=b"here", headers=PROTOBUF))
    async with collecting(client) as exports:
        while not sent.done():
            # The end of the first request's connection may be noticed a moment after it.
            fetched = asyncio.create_task(exports.fetch())
            await asyncio.wait({fetched, sent}, return_when=asyncio.FIRST_COMPLETED)
            if fetched.done():
                await exports.answer([*map(ok, fetched.result()), ExportAnswer(10**9, 200, "", b"unknown")])
            fetched.cancel()
    assert (await sent).status_code == 200


async def test_other_requests_are_answered_as_by_a_collector_without_such_pipelines(
    exporter: httpx.AsyncClient,
) -> None:
    assert (await exporter.post("/v1/metrics", content=b"", headers=PROTOBUF)).status_code == 404
    assert (await exporter.get("/")).status_code == 404
    assert (await exporter.get("/v1/traces")).status_code == 405
    assert (await exporter.post("/exports", content=b"{}")).status_code == 404


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/logs HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /v1/logs HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/logs HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST /v1/logs HTTP/1.1\r\nX: " + b"x" * 40_000,
    ],
)
async def test_malformed_requests_are_refused(running_guest: RunningGuest, client: GuestClient, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running_guest.exports_port)
    writer.write(sent)
    assert (await reader.read(12)) == b"HTTP/1.1 400"
    writer.close()
    await client.stats()


async def test_many_requests_on_one_connection_are_answered_in_turn(
    running_guest: RunningGuest, client: GuestClient
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running_guest.exports_port)
    count = 3_000
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * count)
    writer.write(b"POST /v1/logs HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n")
    writer.write(b"abc")
    async with collecting(client) as exports:
        reading = asyncio.create_task(reader.read(-1))
        (export,) = await exports.fetch()
        assert export.body == b"abc"
        await exports.answer([ok(export, b"done")])
        answers = await reading
    assert answers.count(b"HTTP/1.1 404") == count
    assert answers.count(b"HTTP/1.1 100") == 1
    assert answers.endswith(b"connection: close\r\ncontent-length: 4\r\n\r\ndone")
    writer.close()


async def test_idle_connections_of_apps_do_not_block_other_connections(
    running_guest: RunningGuest, client: GuestClient, exporter: httpx.AsyncClient
) -> None:
    idle = []
    for _ in range(otlp_server.CONNECTIONS_LIMIT):
        reader, writer = await asyncio.open_connection("127.0.0.1", running_guest.exports_port)
        writer.write(b"POST /v1/logs HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
        idle.append((reader, writer))
    assert (await client.exec("echo here")).stdout == b"here\n"
    sent = asyncio.create_task(exporter.post("/v1/logs", content=b"x", headers=PROTOBUF))
    idle.pop()[1].close()
    async with collecting(client) as exports:
        (export,) = await exports.fetch()
        await exports.answer([ok(export)])
    assert (await sent).status_code == 200
    for _, writer in idle:
        writer.close()


async def test_an_app_that_sends_requests_without_a_pause_does_not_block_the_control_socket(
    running_guest: RunningGuest, client: GuestClient
) -> None:
    async def flood() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running_guest.exports_port)
        reading = asyncio.create_task(reader.read(-1))
        try:
            while True:
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000)
                await writer.drain()
        finally:
            reading.cancel()
            writer.close()

    floods = [asyncio.create_task(flood()) for _ in range(4)]
    await asyncio.sleep(0.2)
    assert (await asyncio.wait_for(client.exec("echo here"), WAIT_SECONDS)).stdout == b"here\n"
    for task in floods:
        task.cancel()
    await asyncio.gather(*floods, return_exceptions=True)


async def test_the_otlp_port_is_not_listed_as_a_port_of_an_app(
    running_guest: RunningGuest, client: GuestClient
) -> None:
    assert running_guest.exports_port not in await client.listening_ports()


@pytest.fixture
def used_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


async def test_a_used_otlp_port_is_logged_and_everything_else_works(
    used_port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="sandbox-guest-test-", dir="/tmp"))
    folder.chmod(0o755)
    guest = start_guest(folder, used_port)
    try:
        client = GuestClient(UnixConnector(guest.socket))
        await client.wait_ready(WAIT_SECONDS)
        assert (await client.exec("echo here")).stdout == b"here\n"
        assert used_port in await client.listening_ports()
        async with collecting(client):
            pass
        await client.aclose()
    finally:
        guest.process.terminate()
        assert guest.process.wait(WAIT_SECONDS) == 0
        shutil.rmtree(folder)
    assert f"apps cannot report to 127.0.0.1:{used_port}: " in capfd.readouterr().err
