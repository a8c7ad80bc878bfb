"""What apps report: taken on the loopback, held until it is answered, given to whoever comes for it."""

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

from sandbox.engine.base import Export, ExportAnswer, Exports
from sandbox.engine.guest_client.client import GuestClient
from sandbox.engine.guest_client.http import UnixConnector
from sandbox.errors import GuestError
from sandbox.guest import exporters
from sandbox.guest.exports import WAITING_LIMIT
from tests.integration.guest.running_guests import RunningAgent, start_agent

PROTOBUF = {"Content-Type": "application/x-protobuf", "Authorization": "Bearer t"}


@pytest.fixture
async def exporter(running_agent: RunningAgent) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    url = f"http://127.0.0.1:{running_agent.exports_port}"
    async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False, limits=limits) as http:
        yield http


@contextlib.asynccontextmanager
async def coming(client: GuestClient) -> AsyncIterator[Exports]:
    exports = await client.exports()
    try:
        yield exports
    finally:
        await exports.close()


def ok(export: Export, body: bytes = b"") -> ExportAnswer:
    return ExportAnswer(export.number, 200, export.media_type, body)


async def test_a_request_is_held_until_it_is_answered(exporter: httpx.AsyncClient, client: GuestClient) -> None:
    async with coming(client) as exports:
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


async def test_a_chunked_body_is_put_together(exporter: httpx.AsyncClient, client: GuestClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(300):
            yield b"%d," % number
            if number % 100 == 0:
                await asyncio.sleep(0)

    async with coming(client) as exports:
        sent = asyncio.create_task(exporter.post("/v1/logs", content=pieces(), headers=PROTOBUF))
        (export,) = await exports.fetch()
        assert export.body == b"".join([b"%d," % number for number in range(300)])
        await exports.answer([ok(export)])
        assert (await sent).status_code == 200


async def test_what_waits_is_fetched_together_and_no_more_than_that_waits(
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
    async with coming(client) as exports:
        batch = await exports.fetch()
        assert len(batch) == WAITING_LIMIT
        await exports.answer([ok(export, export.body) for export in batch])
        answers = await asyncio.gather(*waiting)
    # Each got its own answer, though they came and went in any order.
    assert {answer.content for answer in answers} == {export.body for export in batch}
    assert {answer.status_code for answer in answers} == {200}


async def test_bodies_too_large_are_refused_and_the_connection_goes_on(
    exporter: httpx.AsyncClient, client: GuestClient
) -> None:
    async with coming(client) as exports:
        large = await exporter.post("/v1/logs", content=b"x" * (exporters.BODY_LIMIT + 1), headers=PROTOBUF)
        assert large.status_code == 413
        sent = asyncio.create_task(exporter.post("/v1/logs", content=b"small", headers=PROTOBUF))
        (export,) = await exports.fetch()
        await exports.answer([ok(export)])
        assert (await sent).status_code == 200


async def test_large_bodies_come_in_several_batches(exporter: httpx.AsyncClient, client: GuestClient) -> None:
    bodies = {bytes([n]) * (1 << 20) for n in range(1, 11)}
    sent = [asyncio.create_task(exporter.post("/v1/logs", content=body, headers=PROTOBUF)) for body in bodies]
    seen: set[bytes] = set()
    batches = 0
    async with coming(client) as exports:
        while seen != bodies:
            batch = await exports.fetch()
            seen |= {export.body for export in batch}
            batches += 1
            assert len(batch) <= 4
            await exports.answer([ok(export) for export in batch])
    assert batches >= 3
    assert {answer.status_code for answer in await asyncio.gather(*sent)} == {200}


async def test_when_nobody_comes_exporters_are_told_to_try_again(exporter: httpx.AsyncClient) -> None:
    protobuf, json = await asyncio.gather(
        exporter.post("/v1/traces", content=b"a", headers=PROTOBUF),
        exporter.post("/v1/traces", content=b"{}", headers={"Content-Type": "application/json"}),
    )
    for answer in (protobuf, json):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "does not take records" in json.json()["message"]
    assert b"does not take records" in protobuf.content


async def test_what_was_fetched_and_not_answered_is_given_to_the_next(
    exporter: httpx.AsyncClient, client: GuestClient
) -> None:
    async with coming(client) as exports:
        first = asyncio.create_task(exporter.post("/v1/traces", content=b"first", headers=PROTOBUF))
        assert [export.body for export in await exports.fetch()] == [b"first"]
        second = asyncio.create_task(exporter.post("/v1/traces", content=b"second", headers=PROTOBUF))
    async with coming(client) as exports:
        seen: list[bytes] = []
        while len(seen) < 2:
            batch = await exports.fetch()
            seen += [export.body for export in batch]
            await exports.answer([ok(export) for export in batch])
    assert sorted(seen) == [b"first", b"second"]
    assert [answer.status_code for answer in await asyncio.gather(first, second)] == [200, 200]


async def test_the_later_of_two_who_come_gets_everything(exporter: httpx.AsyncClient, client: GuestClient) -> None:
    """The earlier may be frozen, with exports in its hands."""
    async with coming(client) as earlier:
        first = asyncio.create_task(exporter.post("/v1/traces", content=b"first", headers=PROTOBUF))
        await earlier.arrived()
        async with coming(client) as later:
            (export,) = await later.fetch()
            await later.answer([ok(export, b"later")])
            assert (await first).content == b"later"
            await earlier.fetch()  # lies in the socket still
            with pytest.raises(GuestError):
                await earlier.arrived()
            second = asyncio.create_task(exporter.post("/v1/traces", content=b"second", headers=PROTOBUF))
            (export,) = await later.fetch()
            await later.answer([ok(export)])
            assert (await second).status_code == 200


async def test_an_exporter_that_hung_up_is_not_waited_for(exporter: httpx.AsyncClient, client: GuestClient) -> None:
    gone = asyncio.create_task(exporter.post("/v1/logs", content=b"gone", headers=PROTOBUF))
    async with coming(client) as exports:
        assert [export.body for export in await exports.fetch()] == [b"gone"]
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone
    sent = asyncio.create_task(exporter.post("/v1/logs", content=b"here", headers=PROTOBUF))
    async with coming(client) as exports:
        while not sent.done():
            # That nobody waits for the first any more may come to light a moment later than its connection's end.
            fetched = asyncio.create_task(exports.fetch())
            await asyncio.wait({fetched, sent}, return_when=asyncio.FIRST_COMPLETED)
            if fetched.done():
                await exports.answer([*map(ok, fetched.result()), ExportAnswer(10**9, 200, "", b"nobody's")])
            fetched.cancel()
    assert (await sent).status_code == 200


async def test_other_requests_are_answered_as_by_a_collector_without_them(exporter: httpx.AsyncClient) -> None:
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
async def test_what_is_no_request_is_refused(running_agent: RunningAgent, client: GuestClient, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running_agent.exports_port)
    writer.write(sent)
    assert (await reader.read(12)) == b"HTTP/1.1 400"
    writer.close()
    await client.stats()


async def test_many_requests_on_one_connection_are_answered_in_turn(
    running_agent: RunningAgent, client: GuestClient
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running_agent.exports_port)
    count = 3_000
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * count)
    writer.write(b"POST /v1/logs HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n")
    writer.write(b"abc")
    async with coming(client) as exports:
        reading = asyncio.create_task(reader.read(-1))
        (export,) = await exports.fetch()
        assert export.body == b"abc"
        await exports.answer([ok(export, b"done")])
        answers = await reading
    assert answers.count(b"HTTP/1.1 404") == count
    assert answers.count(b"HTTP/1.1 100") == 1
    assert answers.endswith(b"connection: close\r\ncontent-length: 4\r\n\r\ndone")
    writer.close()


async def test_idle_connections_of_apps_keep_nobody_from_the_agent(
    running_agent: RunningAgent, client: GuestClient, exporter: httpx.AsyncClient
) -> None:
    idle = []
    for _ in range(exporters.CONNECTIONS_LIMIT):
        reader, writer = await asyncio.open_connection("127.0.0.1", running_agent.exports_port)
        writer.write(b"POST /v1/logs HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
        idle.append((reader, writer))
    assert (await client.exec("echo here")).stdout == b"here\n"
    sent = asyncio.create_task(exporter.post("/v1/logs", content=b"x", headers=PROTOBUF))
    idle.pop()[1].close()
    async with coming(client) as exports:
        (export,) = await exports.fetch()
        await exports.answer([ok(export)])
    assert (await sent).status_code == 200
    for _, writer in idle:
        writer.close()


async def test_the_agents_port_is_none_of_the_apps(running_agent: RunningAgent, client: GuestClient) -> None:
    assert running_agent.exports_port not in await client.listening_ports()


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


async def test_where_the_port_is_taken_the_agent_says_so_and_does_everything_else(
    taken: socket.socket, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="sandbox-agent-test-", dir="/tmp"))
    folder.chmod(0o755)
    port = taken.getsockname()[1]
    guest = start_agent(folder, port)
    try:
        client = GuestClient(UnixConnector(guest.socket))
        await client.wait_ready(10)
        assert (await client.exec("echo here")).stdout == b"here\n"
        assert port in await client.listening_ports()
        async with coming(client):
            pass
        await client.aclose()
    finally:
        guest.process.terminate()
        assert guest.process.wait(15) == 0
        shutil.rmtree(folder)
    assert f"apps cannot report to 127.0.0.1:{port}: " in capfd.readouterr().err
