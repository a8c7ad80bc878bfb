"""The OTLP intake over HTTP, with the OpenTelemetry SDK and with requests made by hand."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Collection
from typing import Any
from unittest.mock import Mock

import httpx
import psutil
import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Status, StatusCode
from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.errors import InvalidInput
from sandbox.records.disk_space import DiskLow
from sandbox.records.otlp.intake import Intake
from sandbox.records.otlp.receiver import Receiver
from sandbox.records.otlp.worker import NICE

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def token_of(client: httpx.AsyncClient) -> dict[str, str]:
    return {"Authorization": f"Bearer {client.headers['x-api-key']}"}


def span_body(number: int = 1, **more: object) -> dict[str, Any]:
    span = {
        "traceId": TRACE,
        "spanId": f"{number:016x}",
        "name": "work",
        "startTimeUnixNano": str(time.time_ns() // 10**9 * 10**9),
        "endTimeUnixNano": str(time.time_ns()),
    }
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span | more]}]}]}


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip, Compression.Deflate])
async def test_the_python_sdk_exports_spans(server, ada, compression):
    exporter = OTLPSpanExporter(f"{server}/v1/traces", headers=token_of(ada), compression=compression)
    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("tests")

    def work() -> str:
        with tracer.start_as_current_span("order", attributes={"request_id": "r-9"}) as root:
            with tracer.start_as_current_span("pay") as pay:
                pay.set_status(Status(StatusCode.ERROR, "card refused"))
            with pytest.raises(TimeoutError), tracer.start_as_current_span("ship"):
                raise TimeoutError("too slow")
        assert provider.force_flush()
        provider.shutdown()
        return f"{root.get_span_context().trace_id:032x}"

    tree = (await ada.get(f"/api/v1/traces/{await asyncio.to_thread(work)}")).json()
    (root,) = tree["spans"]
    assert (root["operation_name"], root["service_name"], root["status"]) == ("order", "shop", "success")
    assert root["tags"]["user_id"] == "ada"
    pay, ship = root["children"]
    assert (pay["status"], pay["tags"]["error.message"]) == ("error", "card refused")
    assert ship["status"] == "timeout"
    assert ship["logs"][0]["attributes"]["exception.type"] == "TimeoutError"
    assert tree["request_ids"] == ["r-9"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_python_sdk_exports_logs(server, ada, bob):
    exporter = OTLPLogExporter(f"{server}/v1/logs", headers=token_of(ada), compression=Compression.Gzip)
    provider = LoggerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("tests")
    logger = logging.getLogger("tests.shop")
    handler = LoggingHandler(logger_provider=provider)
    logger.addHandler(handler)

    def work() -> None:
        try:
            with tracer.start_as_current_span("order"):
                logger.warning("stock is low", extra={"item": "bolt"})
                try:
                    os.environ["SANDBOX_NOT_SET"]
                except KeyError:
                    logger.exception("no such item")
        finally:
            logger.removeHandler(handler)
        assert provider.force_flush()
        provider.shutdown()

    await asyncio.to_thread(work)
    error, warning = (await ada.get("/api/v1/logs", params={"service": "shop"})).json()["items"]
    assert (warning["level"], warning["message"], warning["user_id"]) == ("WARNING", "stock is low", "ada")
    assert (warning["metadata"]["item"], warning["metadata"]["logger"]) == ("bolt", "tests.shop")
    assert (error["level"], error["request_id"]) == ("ERROR", warning["metadata"]["trace_id"])
    assert "KeyError" in error["stack_trace"]
    assert (await bob.get("/api/v1/logs")).json()["items"] == []
    assert SeverityNumber.WARN.value == 13


async def test_a_span_that_is_sent_twice_is_stored_once(ada, database):
    body = span_body(1)
    answers = await asyncio.gather(*(ada.post("/v1/traces", json=body) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.content for answer in answers} == {b"{}"}
    more = body["resourceSpans"] + span_body(2)["resourceSpans"]
    assert (await ada.post("/v1/traces", json={"resourceSpans": more})).status_code == 200
    async with database.transaction() as connection:
        assert (await connection.execute(text("SELECT span_id FROM traces ORDER BY 1"))).scalars().all() == [
            "0000000000000001",
            "0000000000000002",
        ]


async def test_records_that_cannot_be_stored_are_a_partial_success(ada):
    mixed = span_body(1)["resourceSpans"] + span_body(2, traceId="")["resourceSpans"]
    answer = await ada.post("/v1/traces", json={"resourceSpans": mixed})
    assert answer.status_code == 200
    assert answer.json()["partialSuccess"]["rejectedSpans"] == "1"
    late = {"timeUnixNano": str(time.time_ns() + 10**15), "body": {"stringValue": "x"}}
    logs = await ada.post("/v1/logs", json={"resourceLogs": [{"scopeLogs": [{"logRecords": [late]}]}]})
    assert logs.json()["partialSuccess"]["rejectedLogRecords"] == "1"


async def test_refusals_use_the_encoding_of_the_request(ada, app, settings):
    protobuf = {"Content-Type": "application/x-protobuf"}
    empty = await ada.post("/v1/traces", content=b"", headers=protobuf)
    assert (empty.status_code, empty.headers["content-type"]) == (200, "application/x-protobuf")
    assert ExportTraceServiceResponse.FromString(empty.content) == ExportTraceServiceResponse()
    for content, headers, status, code in (
        (b"\xff\xff", protobuf, 400, b"malformed_request"),
        (b"{", {"Content-Type": "application/json"}, 400, b"malformed_request"),
        (b"a", {"Content-Type": "text/plain"}, 415, b"encoding_unsupported"),
        (b"a", protobuf | {"Content-Encoding": "br"}, 415, b"encoding_unsupported"),
        (gzip.compress(b"\0" * 2**25), protobuf | {"Content-Encoding": "gzip"}, 413, b"body_too_large"),
        (b"\0" * (2**24 + 1), protobuf, 413, b"body_too_large"),
        (b"", protobuf | {"X-API-Key": "nobody"}, 401, b"token_unknown"),
    ):
        refused = await ada.post("/v1/traces", content=content, headers=headers)
        assert refused.status_code == status, headers
        assert code in refused.content


def log_body(*messages: str) -> dict[str, object]:
    records = [{"body": {"stringValue": message}} for message in messages]
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}


async def messages(database: Database) -> list[str]:
    async with database.transaction() as connection:
        return list((await connection.execute(text("SELECT message FROM logs ORDER BY message"))).scalars())


def intake_with(services, dsn, **limits) -> Intake:
    """Replace the intake of the application by one with these limits."""
    intake = Intake(dsn, **{"max_body_bytes": 2**20, "max_waiting_bytes": 2**20} | limits)
    services.intake, services.receiver = intake, Receiver(intake, services.space)
    return intake


async def test_below_the_reserve_of_disk_space_exports_are_to_be_sent_again(services, ada, database):
    low = DiskLow("The disk is nearly full")
    room = Mock(side_effect=[low, None])
    services.receiver = Receiver(services.intake, services.space, require_room=room)
    refused = await ada.post("/v1/logs", json=log_body("one"))
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert b"disk_low" in refused.content
    assert (await ada.post("/v1/logs", json=log_body("one"))).status_code == 200
    assert await messages(database) == ["one"]


async def sent(client: httpx.AsyncClient, message: str) -> None:
    """Send a line as exporters do: again until the answer is not 503."""
    while (answer := await client.post("/v1/logs", json=log_body(message))).status_code == 503:
        assert b"intake_waiting" in answer.content
    assert answer.status_code == 200


async def test_a_full_queue_answers_429(services, ada, database, dsn):
    one, other = log_body("one"), log_body("other")
    intake = intake_with(services, dsn, max_waiting_bytes=int(len(json.dumps(one)) * 1.5))
    async with database.connect_raw() as connection:
        await connection.execute("BEGIN")
        await connection.execute("LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
        waiting = asyncio.create_task(ada.post("/v1/logs", json=one))
        while not intake.waiting_bytes:
            await asyncio.sleep(0.01)
        full = await ada.post("/v1/logs", json=other)
        assert (full.status_code, full.headers["retry-after"]) == (429, "2")
        assert not waiting.done()
        await connection.execute("COMMIT")
    assert (await waiting).status_code == 200
    assert intake.waiting_bytes == 0
    assert (await ada.post("/v1/logs", json=other)).status_code == 200
    assert await messages(database) == ["one", "other"]
    await intake.close()


async def test_records_not_written_in_time_answer_503(services, ada, database, dsn):
    intake = intake_with(services, dsn, timeout_seconds=1.5)
    async with database.connect_raw() as connection:
        await connection.execute("BEGIN")
        await connection.execute("LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
        late = await ada.post("/v1/logs", json=log_body("late"))
        assert (late.status_code, late.headers["retry-after"]) == (503, "2")
        assert b"intake_waiting" in late.content
        await connection.execute("ROLLBACK")
    await sent(ada, "next")
    await intake.close()
    assert "next" in await messages(database)


async def test_a_dsn_that_cannot_be_parsed_is_refused_at_once(services):
    with pytest.raises(InvalidInput) as refused:
        intake_with(services, "postgresql://[")
    assert refused.value.code == "database_url_invalid"


async def test_a_record_that_postgresql_refuses_does_not_affect_others(services, ada, database, dsn):
    async with database.transaction() as connection:
        await connection.execute(text("ALTER TABLE logs ADD CHECK (message <> 'poison')"))
    # With one process the last three are queued behind the first, and are written in one transaction.
    intake = intake_with(services, dsn, processes=1)
    bodies = (log_body("first"), log_body("a", "b"), log_body("c", "poison", "d"), b"none at all")
    headers = {"Content-Type": "application/json"}
    answers = await asyncio.gather(
        *(
            ada.post("/v1/logs", content=body if body == bodies[-1] else json.dumps(body), headers=headers)
            for body in bodies
        )
    )
    assert [answer.status_code for answer in answers] == [200, 200, 200, 400]
    assert [answer.json() for answer in answers[:2]] == [{}, {}]
    partial = answers[2].json()["partialSuccess"]
    assert partial["rejectedLogRecords"] == "1"
    assert "violates check constraint" in partial["errorMessage"]
    assert await messages(database) == ["a", "b", "c", "d", "first"]
    await intake.close()


def workers(of: psutil.Process, *, besides: Collection[psutil.Process] = ()) -> list[psutil.Process]:
    """The worker processes of a process's intakes, besides those that it had before."""
    forked = [child for child in of.children(recursive=True) if "forkserver" in " ".join(child.cmdline())]
    return [child for child in forked if child.nice() == NICE and child not in besides]


@pytest.fixture
def others() -> list[psutil.Process]:
    """Workers of services that earlier tests in this process have started and that still run."""
    return workers(psutil.Process())


async def test_a_worker_process_that_is_killed_is_replaced(others, services, ada, database, dsn):
    intake = intake_with(services, dsn, processes=1)
    assert (await ada.post("/v1/logs", json=log_body("before"))).status_code == 200
    (worker,) = workers(psutil.Process(), besides=others)
    worker.kill()
    await sent(ada, "after")
    assert await messages(database) == ["after", "before"]
    await intake.close()
    assert workers(psutil.Process(), besides=others) == []


async def test_requests_of_a_killed_worker_process_answer_503(others, services, ada, database, dsn):
    intake = intake_with(services, dsn, processes=1)
    async with database.connect_raw() as connection:
        await connection.execute("BEGIN")
        await connection.execute("LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
        waiting = asyncio.create_task(ada.post("/v1/logs", json=log_body("one")))
        while not await waits_for_lock(database):
            await asyncio.sleep(0.02)
        (worker,) = workers(psutil.Process(), besides=others)
        worker.kill()
        answer = await waiting
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert b"intake_waiting" in answer.content
        await connection.execute("ROLLBACK")
    await sent(ada, "two")
    await intake.close()


async def waits_for_lock(database: Database) -> bool:
    async with database.read() as connection:
        waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'logs'::regclass)"
        return bool((await connection.execute(text(waiting))).scalar_one())


async def test_closing_does_not_wait_longer_than_the_timeout(others, services, ada, database, dsn):
    intake = intake_with(services, dsn, processes=1, timeout_seconds=1.5)
    async with database.connect_raw() as connection:
        await connection.execute("BEGIN")
        await connection.execute("LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
        assert (await ada.post("/v1/logs", json=log_body("late"))).status_code == 503
        async with asyncio.timeout(60):
            await intake.close()
    assert workers(psutil.Process(), besides=others) == []


SERVICE = """
import asyncio, sys
from sandbox.records.otlp.intake import Intake
from sandbox.records.otlp.worker import Body

async def main():
    intake = Intake(sys.argv[1], max_body_bytes=2**20, max_waiting_bytes=2**20, processes=1)
    await intake.store(Body("logs", b"{}", "application/json", "", None))
    print("stored", flush=True)
    await asyncio.sleep(60)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_worker_processes_end_with_a_service_that_is_killed(dsn, tmp_path):
    script = tmp_path / "service.py"
    script.write_text(SERVICE)
    with subprocess.Popen([sys.executable, script, dsn], stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        assert service.stdout.readline() == b"stored\n"
        (worker,) = workers(psutil.Process(service.pid))
        service.kill()
    _, alive = psutil.wait_procs([worker], timeout=60)
    assert alive == []
