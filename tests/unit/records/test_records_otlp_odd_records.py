"""Records in OTLP's JSON that are odd or cannot be read: the others of their batch are kept."""

import base64
import json
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sandbox.records.otlp import messages

TRACE = bytes(range(16))
SPAN = bytes(range(8))


def logs(*records: object) -> messages.Decoded[ExportLogsServiceRequest]:
    body = {"resourceLogs": [{"resource": {}, "scopeLogs": [{"logRecords": list(records)}]}]}
    return messages.read(json.dumps(body).encode(), messages.JSON, ExportLogsServiceRequest)


def record(**more: Any) -> dict[str, Any]:
    return {"body": {"stringValue": "pump is on"}} | more


@pytest.mark.parametrize("encode", [bytes.hex, lambda value: base64.b64encode(value).decode()])
def test_ids_are_read_from_hex_and_from_base64(encode: Any) -> None:
    decoded = logs(record(traceId=encode(TRACE), spanId=encode(SPAN)))
    (found,) = decoded.message.resource_logs[0].scope_logs[0].log_records
    assert (found.trace_id, found.span_id, decoded.rejected) == (TRACE, SPAN, 0)


@pytest.mark.parametrize(
    ("odd", "named"),
    [
        (record(traceId="not an id"), "traceId"),
        (record(severityNumber={"is": "no number"}), "severityNumber"),
        (record(timeUnixNano="yesterday"), "timeUnixNano"),
        (record(attributes=[{"key": "a", "value": {"intValue": "many"}}]), "attributes"),
    ],
)
def test_a_record_that_cannot_be_read_is_counted_and_its_field_is_named(odd: dict[str, Any], named: str) -> None:
    decoded = logs(record(), odd, record())
    assert len(decoded.message.resource_logs[0].scope_logs[0].log_records) == 2
    assert decoded.rejected == 1
    assert decoded.reason.startswith("logRecords[1] cannot be read")
    assert named in decoded.reason


def test_spans_that_cannot_be_read_are_counted() -> None:
    good = {"traceId": TRACE.hex(), "spanId": SPAN.hex(), "name": "a"}
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [good, good | {"kind": []}]}]}]}
    decoded = messages.read(json.dumps(body).encode(), messages.JSON, ExportTraceServiceRequest)
    assert [span.name for span in decoded.message.resource_spans[0].scope_spans[0].spans] == ["a"]
    assert (decoded.rejected, "spans[1]" in decoded.reason) == (1, True)


def test_a_body_that_is_wrong_outside_its_records_is_refused_with_the_field() -> None:
    body = {"resourceLogs": [{"resource": 5, "scopeLogs": [{"logRecords": [record()]}]}]}
    with pytest.raises(messages.Malformed, match="resource"):
        messages.read(json.dumps(body).encode(), messages.JSON, ExportLogsServiceRequest)
