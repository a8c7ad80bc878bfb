"""Records as the OpenTelemetry SDK sends them, over real HTTP."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import time
from typing import Any

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
from sandbox.records.otlp.intake import Intake
from sandbox.records.otlp.receiver import Receiver

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


async def test_a_span_sent_again_is_not_doubled(ada, database):
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


async def test_what_cannot_be_kept_is_a_partial_success(ada):
    mixed = span_body(1)["resourceSpans"] + span_body(2, traceId="")["resourceSpans"]
    answer = await ada.post("/v1/traces", json={"resourceSpans": mixed})
    assert answer.status_code == 200
    assert answer.json()["partialSuccess"]["rejectedSpans"] == "1"
    late = {"timeUnixNano": str(time.time_ns() + 10**15), "body": {"stringValue": "x"}}
    logs = await ada.post("/v1/logs", json={"resourceLogs": [{"scopeLogs": [{"logRecords": [late]}]}]})
    assert logs.json()["partialSuccess"]["rejectedLogRecords"] == "1"


async def test_refusals_are_in_kind(ada, app, settings):
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
    """An intake with these limits in the place of the usual one."""
    intake = Intake(dsn, **{"most_bytes": 2**20, "max_waiting_bytes": 2**20} | limits)
    services.intake, services.receiver = intake, Receiver(intake)
    return intake


async def test_a_full_queue_pushes_back(services, ada, database, dsn):
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


async def test_what_is_not_written_in_time_is_to_be_sent_again(services, ada, database, dsn):
    intake = intake_with(services, dsn, timeout_seconds=1.5)
    async with database.connect_raw() as connection:
        await connection.execute("BEGIN")
        await connection.execute("LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
        late = await ada.post("/v1/logs", json=log_body("late"))
        assert (late.status_code, late.headers["retry-after"]) == (503, "2")
        assert b"intake_waiting" in late.content
        await connection.execute("ROLLBACK")
    assert (await ada.post("/v1/logs", json=log_body("next"))).status_code == 200
    await intake.close()
    assert "next" in await messages(database)


async def test_whoever_waits_for_a_writer_that_cannot_begin_is_told_why(services, ada):
    intake = intake_with(services, "postgresql://[")
    answer = await ada.post("/v1/logs", json=log_body("for whom"))
    assert answer.status_code == 422
    assert "database_url_invalid" in answer.json()["message"]
    await intake.close()


async def test_a_record_that_postgresql_refuses_costs_no_other_its_place(services, ada, database, dsn):
    async with database.transaction() as connection:
        await connection.execute(text("ALTER TABLE logs ADD CHECK (message <> 'poison')"))
    # With one process all three wait together behind the first, and are written in one transaction.
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


async def test_a_writer_that_dies_is_replaced(services, ada, database, dsn):
    intake = intake_with(services, dsn, processes=1)
    assert (await ada.post("/v1/logs", json=log_body("before"))).status_code == 200
    for child in psutil.Process().children():
        if "anyio.to_process" in child.cmdline():
            child.kill()
    while (answer := await ada.post("/v1/logs", json=log_body("after"))).status_code == 503:
        assert b"intake_waiting" in answer.content
    assert answer.status_code == 200
    assert await messages(database) == ["after", "before"]
    await intake.close()
