"""OTLP/HTTP bodies: decompressed up to a limit, decoded from protobuf or JSON, and answered in the same encoding."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar

from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sandbox.errors import InvalidInput, Kind, SandboxError

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

RecordKind = Literal["logs", "spans"]

MessageT = TypeVar("MessageT", bound=Message)

#: zlib's window bits for each `Content-Encoding`.
_ENCODINGS = {"gzip": 31, "deflate": 15}
#: Bytes of each id.
_ID_BYTES = {"traceId": 16, "spanId": 8, "parentSpanId": 8}
#: Names in JSON of what contains records, and the type of a record.
_RECORDS: tuple[tuple[str, str, str, type[Message]], ...] = (
    ("resourceLogs", "scopeLogs", "logRecords", LogRecord),
    ("resourceSpans", "scopeSpans", "spans", Span),
)
#: Most characters of the decoder's own message that an error repeats.
_MAX_CAUSE = 300


class EncodingUnknown(SandboxError):
    """The body's media type or content encoding is not supported."""

    code = "encoding_unsupported"
    kind = Kind.UNSUPPORTED


class UnpackedTooLarge(SandboxError):
    """The body is too large once it is decompressed."""

    code = "body_too_large"
    kind = Kind.TOO_LARGE


class Malformed(InvalidInput):
    """The body cannot be decoded as its headers announce. OTLP asks for status 400: a retry cannot succeed."""

    code = "malformed_request"


def media_type(content_type: str) -> str:
    """`PROTOBUF` or `JSON`. Raises EncodingUnknown."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in (PROTOBUF, JSON):
        return kind
    raise EncodingUnknown(f"Only {PROTOBUF} and {JSON} are accepted.", hint="Use OTLP over HTTP.")


def answer_type(content_type: str) -> str:
    """The media type of an answer to a request of this content type, valid or not."""
    return JSON if content_type.partition(";")[0].strip().lower() == JSON else PROTOBUF


def unpack(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Undo the `Content-Encoding` of a body. At most `max_bytes` bytes are decompressed.

    Raises EncodingUnknown, UnpackedTooLarge, Malformed.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _ENCODINGS:
        raise EncodingUnknown("Only gzip and deflate are supported.", hint="Send gzip, or no compression.")
    unpacked = bytearray()
    while body:
        unpacker = zlib.decompressobj(_ENCODINGS[encoding])
        try:
            unpacked += unpacker.decompress(body, max_bytes + 1 - len(unpacked))
        except zlib.error as error:
            raise Malformed(f"The body is not {encoding}.", hint="Check Content-Encoding.") from error
        if len(unpacked) > max_bytes:
            raise UnpackedTooLarge(
                f"The body is larger than {max_bytes:,} bytes decompressed.", hint="Send smaller batches."
            )
        if not unpacker.eof:
            raise Malformed(f"The {encoding} body ends too early.", hint="Send it again, whole.")
        body = unpacker.unused_data
    return bytes(unpacked)


@dataclass(frozen=True, slots=True)
class Decoded(Generic[MessageT]):
    """A decoded body, without the records that cannot be read."""

    message: MessageT
    rejected: int = 0
    #: Why the first of them cannot be read; it names the field.
    reason: str = ""


def read(body: bytes, kind: str, message: type[MessageT]) -> Decoded[MessageT]:
    """Decode a body of this media type. Records in JSON that cannot be read are left out. Raises Malformed."""
    try:
        if kind == PROTOBUF:
            return Decoded(message.FromString(body))
        parsed = json.loads(body, object_hook=_base64_ids)
        if not isinstance(parsed, dict):
            raise Malformed("The body is not a JSON object.", hint="Send OTLP in its JSON encoding.")
        try:
            return Decoded(ParseDict(parsed, message(), ignore_unknown_fields=True))
        except ParseError:
            rejected, reason = _leave_out_unreadable(parsed)
            if not rejected:
                raise
            return Decoded(ParseDict(parsed, message(), ignore_unknown_fields=True), rejected, reason)
    except (DecodeError, ParseError, ValueError, TypeError, RecursionError) as error:
        cause = f": {str(error)[:_MAX_CAUSE]}" if isinstance(error, ParseError) else ""
        raise Malformed(
            f"The body is not an OTLP {message.DESCRIPTOR.name}{cause}.",
            hint="Check Content-Type and the exporter's version.",
        ) from error


def _leave_out_unreadable(parsed: dict[str, Any]) -> tuple[int, str]:
    """Remove the records that cannot be read; how many, and why the first of them cannot."""
    rejected, reason = 0, ""
    for groups, scopes, records, message in _RECORDS:
        for group in _objects(parsed.get(groups)):
            for scope in _objects(group.get(scopes)):
                readable = []
                for index, record in enumerate(scope.get(records) or ()):
                    try:
                        ParseDict(record, message(), ignore_unknown_fields=True)
                        readable.append(record)
                    except (ParseError, ValueError, TypeError, AttributeError) as error:
                        rejected += 1
                        reason = reason or f"{records}[{index}] cannot be read: {str(error)[:_MAX_CAUSE]}"
                scope[records] = readable
    return rejected, reason


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def write(message: Message, kind: str) -> bytes:
    """Encode a message in this media type."""
    return message.SerializeToString() if kind == PROTOBUF else MessageToJson(message, indent=None).encode()


def write_error(text: str, kind: str) -> bytes:
    """Encode an error as OTLP specifies: a `google.rpc.Status`."""
    return write(Status(message=text), kind)


def _base64_ids(node: dict[str, Any]) -> dict[str, Any]:
    """Convert ids from hex, as OTLP's JSON has them, to base64, as protobuf's JSON has bytes.

    Some exporters send base64 in the first place. Its length tells it from hex. Any other text stays as it is if it is
    no base64, so that its record cannot be read.
    """
    for name in _ID_BYTES.keys() & node.keys():
        value = node[name]
        if isinstance(value, str) and not _is_base64(value, _ID_BYTES[name]):
            try:
                node[name] = base64.b64encode(bytes.fromhex(value)).decode()
            except ValueError:
                # A value of another type makes the decoder refuse this record and name the field.
                node[name] = [value]
    return node


def _is_base64(text: str, size: int) -> bool:
    """Whether the text is base64 of exactly `size` bytes."""
    if len(text) != -(-size // 3) * 4:
        return False
    try:
        return len(base64.b64decode(text, validate=True)) == size
    except ValueError:
        return False
