"""Records as the OpenTelemetry SDK sends them, over real HTTP."""

from __future__ import annotations

import asyncio
import gzip
import logging
import time

import httpx
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

from sandbox.telemetry.otlp.decoding import Decoder
from sandbox.telemetry.otlp.receiver import Receiver
from sandbox.telemetry.recorder import Recorder

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def token_of(client: httpx.AsyncClient) -> dict[str, str]:
    return {"Authorization": f"Bearer {client.headers['x-api-key']}"}


def span_body(number: int = 1, **more: object) -> dict[str, object]:
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
                    {}["nut"]
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


async def test_a_full_queue_pushes_back(services, ada, database):
    async with database.connect_raw() as connection:
        await connection.execute("BEGIN")
        await connection.execute("LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
        slow = Recorder(database, max_rows=3)
        slow.start()
        await services.intake.close()
        services.receiver = Receiver(slow, Decoder(services.settings.max_intake_mb * 1024 * 1024))
        record = {"body": {"stringValue": "x"}}

        def send(count: int) -> asyncio.Task[httpx.Response]:
            body = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record] * count}]}]}
            return asyncio.create_task(ada.post("/v1/logs", json=body))

        waiting = send(2)
        while slow.waiting < 2:
            await asyncio.sleep(0.01)
        full = await send(2)
        assert (full.status_code, full.headers["retry-after"]) == (429, "2")
        assert not waiting.done()
        await connection.execute("COMMIT")
    assert (await waiting).status_code == 200
    assert (await send(2)).status_code == 200
    async with database.transaction() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM logs"))).scalar_one() == 4
    assert not slow.dropped
