"""Maps OTLP records to rows of `logs` and `traces`, in the documented columns.

Records cannot choose their owner: what a user sends is that user's. Records that cannot be stored (an invalid id, a
time far in the future) are left out and counted, and the sender gets the count.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from sandbox.records.otlp.owner import Owner
from sandbox.telemetry.rows import (
    MAX_INTEGER,
    MAX_TEXT,
    NULL,
    column,
    copy_line,
    fit,
    from_nanoseconds,
    json_column,
    span_event,
    timestamp_text,
)

#: Most nanoseconds that a record may be ahead of our clock. Clocks differ; more is a mistake.
MAX_AHEAD = 86_400 * 10**9
UNKNOWN_SERVICE = "unknown_service"

#: Severity numbers go by fours: trace, debug, info, warn, error, fatal.
_LEVELS = ("DEBUG", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_NAME, _OPERATION = 100, 200
_NO_IDS = (bytes(16), bytes(8))
_ERROR = Status.STATUS_CODE_ERROR
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
#: Attributes that are overwritten in the records of a session.
_SESSION_CLAIMS = ("session_id", "session.id", "sandbox.session.id")
_USER_CLAIMS = ("user_id", "user.id")
_TIMEOUT = re.compile(r"time[-_ ]?out|timed[-_ ]?out|deadline[-_ ]?exceeded", re.IGNORECASE)
_TIMEOUT_STATUSES = ("408", "504")


@dataclass(slots=True)
class Mapped:
    """Rows to write as lines of COPY, the number of rejected records, and why the first of them was rejected."""

    rows: list[bytes] = field(default_factory=list)
    rejected: int = 0
    reason: str = ""

    def reject(self, reason: str) -> None:
        self.rejected += 1
        self.reason = self.reason or reason


class _Rejected(ValueError):
    """The record cannot be stored."""


class _Source:
    """Values that the records of one resource and scope have in common, computed once."""

    def __init__(self, resource: Mapping[str, Any], scope: str, owner: Owner | None) -> None:
        self.service = column(str(resource.get("service.name") or UNKNOWN_SERVICE), _NAME)
        self.scope = scope
        self._owner = owner
        self._resource_user = _first(resource, _USER_IDS)
        #: True values of the attributes that name session and user; and those that every record of a session gets.
        self._claims: dict[str, str] = {}
        self.session: dict[str, str] = {}
        if owner is not None and owner.session_id is not None:
            self.session = {"session_id": owner.session_id}
            self._claims = dict.fromkeys(_SESSION_CLAIMS, owner.session_id)
            self._claims |= dict.fromkeys(_USER_CLAIMS, fit(owner.user_id, _NAME))
        rest = {key: value for key, value in resource.items() if key != "service.name"}
        self.correct(rest)
        self.rest: dict[str, Any] = {"resource": rest} if rest else {}

    def user(self, given: Mapping[str, Any]) -> str | None:
        """The user of a record with these attributes; None if it has none."""
        user = self._owner.user_id if self._owner is not None else _first(given, _USER_IDS) or self._resource_user
        return None if user is None else fit(user, _NAME)

    def correct(self, given: dict[str, Any]) -> None:
        """Overwrite attributes of a session's record that name another session or user."""
        if self._claims:
            for name in self._claims.keys() & given.keys():
                given[name] = self._claims[name]


def map_spans(request: ExportTraceServiceRequest, owner: Owner | None) -> Mapped:
    """The spans of a request. `owner` is their user; None if they may name it themselves."""
    mapped, latest = Mapped(), time.time_ns() + MAX_AHEAD
    for group in request.resource_spans:
        resource = attributes(group.resource.attributes)
        for scope in group.scope_spans:
            source = _Source(resource, scope.scope.name, owner)
            for span in scope.spans:
                try:
                    mapped.rows.append(_span(span, source, latest))
                except _Rejected as rejected:
                    mapped.reject(str(rejected))
    return mapped


def map_logs(request: ExportLogsServiceRequest, owner: Owner | None) -> Mapped:
    """The log records of a request; `owner` as for `map_spans`."""
    mapped, now = Mapped(), time.time_ns()
    for group in request.resource_logs:
        resource = attributes(group.resource.attributes)
        for scope in group.scope_logs:
            source = _Source(resource, scope.scope.name, owner)
            for record in scope.log_records:
                try:
                    mapped.rows.append(_log(record, source, now))
                except _Rejected as rejected:
                    mapped.reject(str(rejected))
    return mapped


def attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes as Python values."""
    # Nearly all values are strings or integers, and to read a field is much cheaper than to find out which one is set.
    return {pair.key: (value := pair.value).string_value or value.int_value or _value(value) for pair in pairs}


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


def _span(span: Span, source: _Source, latest: int) -> bytes:
    trace_id, span_id = _id(span.trace_id, 16, "trace id"), _id(span.span_id, 8, "span id")
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    if not 0 < start <= latest:
        raise _Rejected("a span's start time is missing, or far ahead of this service's clock")
    end = max(start, end)
    given = attributes(span.attributes)
    status, events = "success", []
    if span.events:
        events = [
            span_event(event.name, from_nanoseconds(event.time_unix_nano), attributes(event.attributes))
            for event in span.events
        ]
    outcome = span.status
    if outcome.code == _ERROR:
        status = _failure(span, given, events)
    kind = span.kind
    source.correct(given)
    user = source.user(given)
    identity = source.session if user is None else {"user_id": user, **source.session}
    # First, so that they stay when too many tags are cut; and again below, so that they override the given ones.
    tags = {**identity, **given, "span.kind": _KINDS[kind] if 0 <= kind < len(_KINDS) else _KINDS[0]}
    if source.rest:
        tags.update(source.rest)
    if source.scope:
        tags["otel.scope.name"] = source.scope
    if outcome.message:
        tags["error.message"] = outcome.message
    if span.links:
        tags["links"] = [{"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex()} for link in span.links]
    if identity:
        tags.update(identity)
    parent = span.parent_span_id
    return copy_line(
        (
            trace_id,
            span_id,
            _id(parent, 8, "parent's id") if parent else NULL,
            column(span.name or "unnamed", _OPERATION),
            source.service,
            timestamp_text(start),
            timestamp_text(end),
            str(min((end - start + 500_000) // 1_000_000, MAX_INTEGER)),
            status,
            json_column(tags, identity),
            json_column(events) if events else "[]",
        )
    )


def _failure(span: Span, given: Mapping[str, Any], events: list[dict[str, Any]]) -> str:
    codes = (given.get("http.response.status_code"), given.get("http.status_code"))
    if any(str(code) in _TIMEOUT_STATUSES for code in codes):
        return "timeout"
    causes = [given.get("error.type"), given.get("exception.type"), span.status.message]
    causes += [event.get("attributes", {}).get("exception.type") for event in events]
    return "timeout" if any(isinstance(cause, str) and _TIMEOUT.search(cause) for cause in causes) else "error"


def _log(record: LogRecord, source: _Source, now: int) -> bytes:
    nanoseconds = record.time_unix_nano or record.observed_time_unix_nano or now
    if nanoseconds > now + MAX_AHEAD:
        raise _Rejected("a log record's time is far ahead of this service's clock")
    given = {**source.session, **attributes(record.attributes)}
    source.correct(given)
    user = source.user(given)
    request_id = _first(given, _REQUEST_IDS)
    message = column(_message(_value(record.body), given, record.event_name), MAX_TEXT)
    stack = given.pop("exception.stacktrace", None)
    if source.scope:
        given["logger"] = source.scope
    if record.event_name:
        given["event"] = record.event_name
    if record.trace_id:
        given["trace_id"] = trace_id = record.trace_id.hex()
        request_id = request_id or trace_id
    if record.span_id:
        given["span_id"] = record.span_id.hex()
    if source.rest:
        given.update(source.rest)
    return copy_line(
        (
            timestamp_text(nanoseconds),
            _level(record),
            source.service,
            message,
            column(str(stack), MAX_TEXT) if stack else NULL,
            column(request_id, _NAME) if request_id else NULL,
            NULL if user is None else column(user, _NAME),
            json_column(given, source.session) if given else NULL,
        )
    )


def _message(body: Any, given: Mapping[str, Any], event_name: str) -> str:
    if isinstance(body, str):
        return body
    if body is None:
        return str(given.get("exception.message") or event_name or "")
    return json.dumps(body, ensure_ascii=False, default=str)


def _level(record: LogRecord) -> str:
    number = record.severity_number
    if number > 0:
        return _LEVELS[min((number - 1) // 4, 5)]
    return _SEVERITY_TEXTS.get(record.severity_text.strip().lower(), "INFO")


def _first(given: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of the named values that is present and not empty, as text."""
    for name in names:
        if given.get(name):
            return str(given[name])
    return None


def _id(value: bytes, length: int, what: str) -> str:
    if len(value) != length or value in _NO_IDS:
        raise _Rejected(f"a {what} is not {length} bytes, or all zero")
    return value.hex()
