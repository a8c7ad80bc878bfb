"""OTLP's records as rows of `logs` and `traces`, in the documented columns.

Whose they are is not theirs to say: a user's records are that user's. Records that cannot be kept (ids that are none, a
time far ahead) are left out and counted; the sender is told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from sandbox.telemetry.rows import LogRow, ReadyRow, SpanRow, clean_text, from_nanoseconds, span_event

#: Clocks differ; more than this ahead is a mistake, and would stay for ever.
MAX_AHEAD = timedelta(days=1)
UNKNOWN_SERVICE = "unknown_service"

_SEVERITIES = ((21, "CRITICAL"), (17, "ERROR"), (13, "WARNING"), (9, "INFO"), (1, "DEBUG"))
_SEVERITY_TEXTS = {
    "trace": "DEBUG",
    "debug": "DEBUG",
    "info": "INFO",
    "information": "INFO",
    "notice": "INFO",
    "warn": "WARNING",
    "warning": "WARNING",
    "error": "ERROR",
    "fatal": "CRITICAL",
    "critical": "CRITICAL",
    "alert": "CRITICAL",
    "emergency": "CRITICAL",
}
_REQUEST_IDS = ("request_id", "request.id", "http.request.id", "http.request_id")
_USER_IDS = ("user_id", "user.id", "enduser.id")
_TIMEOUT = re.compile(r"time[-_ ]?out|timed[-_ ]?out|deadline[-_ ]?exceeded", re.IGNORECASE)
_TIMEOUT_STATUSES = ("408", "504")


@dataclass(slots=True)
class Mapped:
    """Rows to write, and what was left out."""

    rows: list[ReadyRow] = field(default_factory=list)
    rejected: int = 0
    reason: str = ""

    def reject(self, reason: str) -> None:
        self.rejected += 1
        self.reason = self.reason or reason


class _Refused(ValueError):
    """This record cannot be kept."""


def map_spans(request: ExportTraceServiceRequest, owner: str | None) -> Mapped:
    """The spans of a request; `owner` is the user whose they are, None if they may say so themselves."""
    mapped, latest = Mapped(), datetime.now(UTC) + MAX_AHEAD
    for group in request.resource_spans:
        resource = attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                try:
                    row = _span(span, resource, scope.scope.name, owner, latest)
                except _Refused as refused:
                    mapped.reject(str(refused))
                else:
                    mapped.rows.append(row)
    return mapped


def map_logs(request: ExportLogsServiceRequest, owner: str | None) -> Mapped:
    """The log records of a request, likewise."""
    mapped, now = Mapped(), datetime.now(UTC)
    for group in request.resource_logs:
        resource = attributes(group.resource.attributes)
        for scope in group.scope_logs:
            for record in scope.log_records:
                try:
                    row = _log(record, resource, scope.scope.name, owner, now)
                except _Refused as refused:
                    mapped.reject(str(refused))
                else:
                    mapped.rows.append(row)
    return mapped


def attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return attributes(value.kvlist_value.values)
        case "bytes_value":
            return value.bytes_value.hex()
        case name:
            return getattr(value, name)


def _span(span: Span, resource: Mapping[str, Any], scope: str, owner: str | None, latest: datetime) -> ReadyRow:
    trace_id, span_id = _id(span.trace_id, 16, "trace id"), _id(span.span_id, 8, "span id")
    if not span.start_time_unix_nano:
        raise _Refused("a span has no start time")
    start = from_nanoseconds(span.start_time_unix_nano)
    if start > latest:
        raise _Refused("a span's start time is far ahead of this service's clock")
    end = from_nanoseconds(max(span.end_time_unix_nano, span.start_time_unix_nano))
    given = attributes(span.attributes)
    tags = {**given, "span.kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower()}
    if scope:
        tags["otel.scope.name"] = scope
    if span.status.message:
        tags["error.message"] = span.status.message
    if span.links:
        tags["links"] = [{"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex()} for link in span.links]
    tags.update(_owned("user_id", owner, given, resource))
    tags.update(_rest(resource))
    events = [
        span_event(event.name, from_nanoseconds(event.time_unix_nano), attributes(event.attributes))
        for event in span.events
    ]
    return ReadyRow(
        SpanRow(
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id=_id(span.parent_span_id, 8, "parent's id") if span.parent_span_id else None,
            operation_name=span.name or "unnamed",
            service_name=_service(resource),
            start_time=start,
            end_time=end,
            duration_ms=round((end - start).total_seconds() * 1000),
            status=_status(span, given, events),
            tags=tags,
            logs=events,
        )
    )


def _status(span: Span, given: Mapping[str, Any], events: list[dict[str, Any]]) -> str:
    if span.status.code != Status.STATUS_CODE_ERROR:
        return "success"
    codes = (given.get("http.response.status_code"), given.get("http.status_code"))
    if any(str(code) in _TIMEOUT_STATUSES for code in codes):
        return "timeout"
    causes = [given.get("error.type"), given.get("exception.type"), span.status.message]
    causes += [event.get("attributes", {}).get("exception.type") for event in events]
    return "timeout" if any(isinstance(cause, str) and _TIMEOUT.search(cause) for cause in causes) else "error"


def _log(record: LogRecord, resource: Mapping[str, Any], scope: str, owner: str | None, now: datetime) -> ReadyRow:
    nanoseconds = record.time_unix_nano or record.observed_time_unix_nano
    time = from_nanoseconds(nanoseconds) if nanoseconds else now
    if time > now + MAX_AHEAD:
        raise _Refused("a log record's time is far ahead of this service's clock")
    given = attributes(record.attributes)
    stack = given.pop("exception.stacktrace", None)
    metadata = dict(given)
    if scope:
        metadata["logger"] = scope
    if record.event_name:
        metadata["event"] = record.event_name
    trace_id = record.trace_id.hex()
    for name, value in (("trace_id", trace_id), ("span_id", record.span_id.hex())):
        if value.strip("0"):
            metadata[name] = value
    metadata.update(_rest(resource))
    request_id = next((str(given[name]) for name in _REQUEST_IDS if given.get(name)), metadata.get("trace_id"))
    user_id = _owned("user_id", owner, given, resource).get("user_id")
    message = _value(record.body)
    return ReadyRow(
        LogRow(
            timestamp=time,
            level=_level(record),
            service=_service(resource),
            message=_message(message, given, record.event_name),
            stack_trace=str(stack) if stack else None,
            request_id=request_id,
            user_id=user_id,
            metadata=metadata,
        )
    )


def _message(body: Any, given: Mapping[str, Any], event_name: str) -> str:
    if isinstance(body, str):
        return body
    if body is None:
        return str(given.get("exception.message") or event_name or "")
    return json.dumps(body, ensure_ascii=False, default=str)


def _level(record: LogRecord) -> str:
    for least, level in _SEVERITIES:
        if record.severity_number >= least:
            return level
    return _SEVERITY_TEXTS.get(record.severity_text.strip().lower(), "INFO")


def _service(resource: Mapping[str, Any]) -> str:
    return str(resource.get("service.name") or UNKNOWN_SERVICE)


def _rest(resource: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in resource.items() if key != "service.name"}
    return {"resource": rest} if rest else {}


def _owned(name: str, owner: str | None, *places: Mapping[str, Any]) -> dict[str, str]:
    if owner is not None:
        return {name: owner}
    said = next((str(place[key]) for place in places for key in _USER_IDS if place.get(key)), None)
    return {name: clean_text(said, 100)} if said else {}


def _id(value: bytes, length: int, what: str) -> str:
    if len(value) != length or not any(value):
        raise _Refused(f"a {what} is not {length} bytes, or all zero")
    return value.hex()
