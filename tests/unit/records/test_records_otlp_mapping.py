"""OTLP bodies: decompression limits, decoding of both encodings, and mapping to the documented columns."""

import gzip
import json
import re
import time
import zlib
from typing import Any

import pytest
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sandbox.errors import SandboxError
from sandbox.records.otlp import messages
from sandbox.records.otlp.mapping import map_logs, map_spans
from sandbox.records.otlp.owner import Owner
from sandbox.telemetry.rows import LOG_COLUMNS, SPAN_COLUMNS

NOW = time.time_ns()
TRACE, SPAN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"


def attribute(key, **value):
    return {"key": key, "value": value}


def spans(*given, resource=()):
    body = {"resourceSpans": [{"resource": {"attributes": list(resource)}, "scopeSpans": [{"spans": list(given)}]}]}
    return messages.read(json.dumps(body).encode(), messages.JSON, ExportTraceServiceRequest).message


def span(**more):
    return {
        "traceId": TRACE,
        "spanId": SPAN,
        "name": "GET /",
        "kind": 2,
        "startTimeUnixNano": str(NOW),
        "endTimeUnixNano": str(NOW + 1_500_000_000),
    } | more


def fields(columns, row):
    """The columns of a line as COPY reads them."""
    texts = row.decode().removesuffix("\n").split("\t")
    unescaped = {"\\\\": "\\", "\\n": "\n", "\\r": "\r", "\\t": "\t"}
    values = [None if t == "\\N" else re.sub(r"\\.", lambda m: unescaped[m[0]], t) for t in texts]
    return dict(zip(columns, values, strict=True))


def one_span(owner=None, resource=(), **more):
    (row,) = map_spans(spans(span(**more), resource=resource), owner).rows
    return fields(SPAN_COLUMNS, row)


def one_log(owner=None, resource=(), **record):
    body = {"resourceLogs": [{"resource": {"attributes": list(resource)}, "scopeLogs": [{"logRecords": [record]}]}]}
    decoded = messages.read(json.dumps(body).encode(), messages.JSON, ExportLogsServiceRequest)
    mapped = map_logs(decoded.message, owner)
    return fields(LOG_COLUMNS, mapped.rows[0])


def test_a_span_maps_to_the_documented_columns():
    row = one_span(
        resource=[attribute("service.name", stringValue="shop"), attribute("host.name", stringValue="h")],
        parentSpanId=PARENT,
        attributes=[attribute("http.method", stringValue="GET"), attribute("db.rows", intValue="3")],
        events=[
            {
                "timeUnixNano": str(NOW),
                "name": "cache_miss",
                "attributes": [attribute("message", stringValue="not in cache")],
            }
        ],
    )
    assert (row["trace_id"], row["span_id"], row["parent_span_id"]) == (TRACE, SPAN, PARENT)
    assert (row["operation_name"], row["service_name"], row["duration_ms"]) == ("GET /", "shop", "1500")
    assert row["status"] == "success"
    tags = json.loads(row["tags"])
    assert tags == {"http.method": "GET", "db.rows": 3, "span.kind": "server", "resource": {"host.name": "h"}}
    (event,) = json.loads(row["logs"])
    assert (event["event"], event["message"], event["timestamp"][-1]) == ("cache_miss", "not in cache", "Z")


@pytest.mark.parametrize(
    ("status", "attributes", "expected"),
    [
        ({}, [], "success"),
        ({"code": 1}, [], "success"),
        ({"code": 2}, [], "error"),
        ({"code": "STATUS_CODE_ERROR", "message": "boom"}, [], "error"),
        ({"code": 2}, [attribute("error.type", stringValue="TimeoutError")], "timeout"),
        ({"code": 2, "message": "context deadline exceeded"}, [], "timeout"),
        ({"code": 2}, [attribute("http.response.status_code", intValue=504)], "timeout"),
        ({"code": 1}, [attribute("http.response.status_code", intValue=504)], "success"),
    ],
)
def test_status_is_success_error_or_timeout(status, attributes, expected):
    assert one_span(status=status, attributes=attributes)["status"] == expected


def test_an_exception_event_names_a_timeout():
    event = {"name": "exception", "attributes": [attribute("exception.type", stringValue="httpx.ReadTimeout")]}
    assert one_span(status={"code": 2}, events=[event])["status"] == "timeout"


@pytest.mark.parametrize(
    "broken",
    [
        {"traceId": ""},
        {"traceId": "00" * 16},
        {"spanId": "ab"},
        {"startTimeUnixNano": "0"},
        {"startTimeUnixNano": str(NOW + 3 * 86_400 * 10**9)},
    ],
)
def test_spans_that_cannot_be_stored_are_counted(broken):
    mapped = map_spans(spans(span(), span(**broken)), None)
    assert (len(mapped.rows), mapped.rejected) == (1, 1)
    assert mapped.reason


def test_records_belong_to_their_sender():
    claims = [attribute("user.id", stringValue="eve")]
    assert json.loads(one_span(attributes=claims)["tags"])["user_id"] == "eve"
    assert json.loads(one_span(Owner("ada"), attributes=claims)["tags"])["user_id"] == "ada"
    assert one_log(attributes=claims)["user_id"] == "eve"
    assert one_log(Owner("ada"), attributes=claims)["user_id"] == "ada"
    assert one_log()["user_id"] is None


OTHERS = [
    attribute(name, stringValue="somebody else's")
    for name in ("user.id", "user_id", "enduser.id", "session.id", "session_id")
]
SESSION = Owner("ada", "5e55")


def test_records_of_a_session_cannot_claim_another_owner():
    tags = json.loads(one_span(SESSION, resource=OTHERS, attributes=OTHERS)["tags"])
    log = one_log(SESSION, resource=OTHERS, attributes=OTHERS)
    metadata = json.loads(log["metadata"])
    assert log["user_id"] == "ada"
    for values in (tags, tags["resource"], metadata, metadata["resource"]):
        assert {values["session_id"], values["session.id"]} == {"5e55"}
        assert {values["user_id"], values["user.id"]} == {"ada"}
        # Attributes about an app's own users stay.
        assert values["enduser.id"] == "somebody else's"
    assert json.loads(one_span(SESSION)["tags"])["session_id"] == json.loads(one_log(SESSION)["metadata"])["session_id"]


@pytest.mark.parametrize(
    "attributes",
    [
        [attribute("x", stringValue="\0"), *(attribute(f"a{n}", intValue=n) for n in range(300))],
        [attribute("x", stringValue="x" * 70_000)],
        [attribute("x", stringValue="\0" * 70_000), *(attribute(f"a{n}", stringValue="\0" * 9_000) for n in range(20))],
        [attribute(f"a{n}", intValue=n) for n in range(10_000)],
    ],
    ids=["cut to some", "too long a text", "too much after cutting", "too many"],
)
def test_the_owner_stays_when_attributes_are_cut(attributes):
    tags = json.loads(one_span(SESSION, attributes=attributes)["tags"])
    assert (tags["user_id"], tags["session_id"]) == ("ada", "5e55")
    log = one_log(SESSION, attributes=attributes)
    assert (log["user_id"], json.loads(log["metadata"])["session_id"]) == ("ada", "5e55")


@pytest.mark.parametrize(
    ("record", "level"),
    [({"severityNumber": n}, level) for n, level in ((1, "DEBUG"), (8, "DEBUG"), (9, "INFO"), (12, "INFO"))]
    + [({"severityNumber": n}, level) for n, level in ((13, "WARNING"), (17, "ERROR"), (21, "CRITICAL"))]
    + [({"severityText": text}, level) for text, level in (("Warn", "WARNING"), ("FATAL", "CRITICAL"), ("", "INFO"))],
)
def test_severity(record, level):
    assert one_log(**record)["level"] == level


def test_a_log_record_maps_to_the_documented_columns():
    row = one_log(
        resource=[attribute("service.name", stringValue="shop")],
        timeUnixNano=str(NOW),
        body={"stringValue": "no stock"},
        traceId=TRACE,
        spanId=SPAN,
        attributes=[
            attribute("exception.stacktrace", stringValue="Traceback"),
            attribute("exception.type", stringValue="KeyError"),
            attribute("items", arrayValue={"values": [{"intValue": 1}, {"boolValue": True}]}),
        ],
    )
    assert (row["service"], row["message"], row["stack_trace"]) == ("shop", "no stock", "Traceback")
    assert row["request_id"] == TRACE
    metadata = json.loads(row["metadata"])
    assert metadata == {"exception.type": "KeyError", "items": [1, True], "trace_id": TRACE, "span_id": SPAN}
    assert one_log(attributes=[attribute("request_id", stringValue="r-1")])["request_id"] == "r-1"
    structured = one_log(body={"kvlistValue": {"values": [attribute("a", doubleValue=1.5)]}})
    assert structured["message"] == '{"a": 1.5}'


@pytest.mark.parametrize("text", ["a\tb", "line\nline", "c\\d", "\\N", "\\.", "e\r\nf", '"quoted"', "ü€😀", "nul\0"])
def test_any_text_is_stored_unchanged(text):
    row = one_log(body={"stringValue": text}, attributes=[attribute(text, stringValue=text)])
    stored = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    assert row["message"] == stored
    assert json.loads(row["metadata"]) == {stored: stored}


def test_bodies_are_decompressed_up_to_the_limit():
    body = b"x" * 1000
    assert messages.unpack(body, "", 10) == body
    assert messages.unpack(gzip.compress(body), "gzip", 1000) == body
    assert messages.unpack(gzip.compress(body) * 2, "GZIP", 2000) == body * 2
    assert messages.unpack(zlib.compress(body), "deflate", 1000) == body
    bomb = gzip.compress(b"\0" * 50_000_000)
    for packed, encoding, code in (
        (bomb, "gzip", "body_too_large"),
        (gzip.compress(body) * 2, "gzip", "body_too_large"),
        (gzip.compress(body)[:-9], "gzip", "malformed_request"),
        (body, "gzip", "malformed_request"),
        (body, "br", "encoding_unsupported"),
    ):
        with pytest.raises(SandboxError) as refused:
            messages.unpack(packed, encoding, 1500)
        assert refused.value.code == code


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{",
        b'{"resourceSpans": 5}',
    ],
)
def test_malformed_json_is_refused(body):
    with pytest.raises(messages.Malformed):
        messages.read(body, messages.JSON, ExportTraceServiceRequest)


def test_deep_json_is_refused():
    deep = b'{"a":' * 100_000
    with pytest.raises(messages.Malformed):
        messages.read(deep, messages.JSON, ExportTraceServiceRequest)


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_or_refused(body):
    converters: tuple[tuple[Any, Any], ...] = (
        (ExportTraceServiceRequest, map_spans),
        (ExportLogsServiceRequest, map_logs),
    )
    for message, convert in converters:
        try:
            mapped = convert(messages.read(body, messages.PROTOBUF, message).message, None)
        except messages.Malformed:
            continue
        assert all(row.size() > 0 for row in mapped.rows)


def test_errors_use_the_encoding_of_the_request():
    assert Status.FromString(messages.write_error("no", messages.PROTOBUF)).message == "no"
    assert json.loads(messages.write_error("no", messages.JSON)) == {"message": "no"}
