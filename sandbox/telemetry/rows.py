"""Encodes rows of `logs` and `traces` as lines for COPY, such that PostgreSQL accepts them whatever they contain."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from sandbox.db.driver import to_db

MAX_TEXT = 65_536
MAX_JSON = 65_536
_MAX_JSON_DEPTH = 8
_MAX_JSON_ITEMS = 200
_MAX_JSON_STRING = 8_192
_MAX_JSON_BITS = 1_024
MAX_INTEGER = 2**31 - 1
#: Values without a JSON form make orjson raise; `clean_json` encodes them.
_PLAIN_ONLY = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
_NAME = 100
_OPERATION = 200


@dataclass(slots=True)
class LogRow:
    """One row of `logs` (`LOG_COLUMNS`). `level` is one of the documented five."""

    timestamp: datetime
    level: str
    service: str
    message: str
    stack_trace: str | None = None
    request_id: str | None = None
    user_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def line(self) -> bytes:
        """The row as a line for COPY, cleaned."""
        return copy_line(
            (
                _time_column(self.timestamp),
                column(self.level, _NAME),
                column(self.service, _NAME),
                column(self.message, MAX_TEXT),
                _optional_column(self.stack_trace, MAX_TEXT),
                _optional_column(self.request_id, _NAME),
                _optional_column(self.user_id, _NAME),
                json_column(self.metadata) if self.metadata else NULL,
            )
        )


@dataclass(slots=True)
class SpanRow:
    """One row of `traces` (`SPAN_COLUMNS`). `status` is success, error or timeout."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    operation_name: str
    service_name: str
    start_time: datetime
    end_time: datetime
    duration_ms: int
    status: str
    tags: dict[str, Any] = field(default_factory=dict)
    logs: list[dict[str, Any]] = field(default_factory=list)

    def line(self) -> bytes:
        """The row as a line for COPY, cleaned."""
        return copy_line(
            (
                column(self.trace_id, _NAME),
                column(self.span_id, _NAME),
                _optional_column(self.parent_span_id, _NAME),
                column(self.operation_name, _OPERATION),
                column(self.service_name, _NAME),
                _time_column(self.start_time),
                _time_column(self.end_time),
                str(min(max(self.duration_ms, 0), MAX_INTEGER)),
                column(self.status, _NAME),
                json_column(self.tags),
                json_column(self.logs),
            )
        )


#: NULL in COPY's text format.
NULL = "\\N"


def copy_line(columns: Sequence[str]) -> bytes:
    """A row in COPY's text format.

    Each column is the result of `column` or `json_column`, NULL, or text without backslashes, tabs and line breaks.
    """
    return ("\t".join(columns) + "\n").encode()


def column(value: str, limit: int) -> str:
    """A text column for COPY, cut to `limit` characters."""
    if len(value) <= limit and value.isprintable() and "\\" not in value:  # true for most values
        return value
    value = clean_text(value, limit)
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def _optional_column(value: str | None, limit: int) -> str:
    return NULL if value is None else column(value, limit)


def _time_column(value: datetime) -> str:
    return to_db(value).isoformat(" ")


def json_column(value: Any, essential: Mapping[str, str] | None = None) -> str:
    """A JSONB column for COPY. `essential` as for `clean_json`, which encodes what orjson cannot."""
    try:
        encoded = orjson.dumps(value, option=_PLAIN_ONLY)
    except TypeError:
        text = clean_json(value, essential)
    else:
        acceptable = len(encoded) <= MAX_JSON and b"\\u0000" not in encoded
        text = encoded.decode() if acceptable else clean_json(value, essential)
    # JSON escapes control characters, so backslashes are all that COPY would interpret.
    return text.replace("\\", "\\\\") if "\\" in text else text


def fit(value: str, limit: int) -> str:
    """`clean_text` for text that was decoded from UTF-8 and so has no lone surrogates."""
    return value if len(value) <= limit and "\0" not in value else clean_text(value, limit)


def timestamp_text(nanoseconds: int) -> str:
    """Nanoseconds since 1970 as the text of a TIMESTAMP column, in UTC."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_second_text(seconds)}.{rest // 1000:06d}"


@lru_cache(maxsize=4096)
def _second_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


LOG_COLUMNS = ("timestamp", "level", "service", "message", "stack_trace", "request_id", "user_id", "metadata")
SPAN_COLUMNS = (
    "trace_id",
    "span_id",
    "parent_span_id",
    "operation_name",
    "service_name",
    "start_time",
    "end_time",
    "duration_ms",
    "status",
    "tags",
    "logs",
)


def span_event(name: str, time: datetime, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of a span's `logs`, in the documented shape, with all attributes under `attributes`."""
    message = attributes.get("message") or attributes.get("exception.message") or name
    event = {"timestamp": time.isoformat().replace("+00:00", "Z"), "event": name, "message": str(message)}
    return event | ({"attributes": dict(attributes)} if attributes else {})


def from_nanoseconds(value: int) -> datetime:
    """Nanoseconds since 1970 as a UTC time, to the microsecond."""
    seconds, rest = divmod(value, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


def clean_text(value: str, limit: int) -> str:
    """Text cut to `limit` characters, with NUL and lone surrogates replaced, which PostgreSQL refuses."""
    if len(value) > limit:
        value = value[: limit - 1] + "…"
    if "\0" in value:
        value = value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    try:
        value.encode()
    except UnicodeEncodeError:
        value = value.encode("utf-8", "replace").decode()
    return value


def clean_json(value: Any, essential: Mapping[str, str] | None = None) -> str:
    """JSON text that a JSONB column accepts. Values without a JSON form become text; nested and long ones are cut.

    If the result is still too large, only the members of `essential` are written.
    """
    try:
        encoded = json.dumps(_plain(value, _MAX_JSON_DEPTH), ensure_ascii=False, allow_nan=False)
    except Exception as error:  # noqa: BLE001 - the value may hold any object, whose __str__ may raise anything
        return json.dumps({**(essential or {}), "unrecordable": type(error).__name__})
    return encoded if len(encoded) <= MAX_JSON else json.dumps({**(essential or {}), "too_large": len(encoded)})


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if value.bit_length() <= _MAX_JSON_BITS else f"an integer of {value.bit_length()} bits"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth > 0 and isinstance(value, Mapping):
        items = list(value.items())[:_MAX_JSON_ITEMS]
        return {clean_text(str(key), _MAX_JSON_STRING): _plain(item, depth - 1) for key, item in items}
    if depth > 0 and isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth - 1) for item in list(value)[:_MAX_JSON_ITEMS]]
    return clean_text(value if isinstance(value, str) else str(value), _MAX_JSON_STRING)
