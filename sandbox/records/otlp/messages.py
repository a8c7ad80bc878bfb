"""OTLP/HTTP bodies: decompressed up to a limit, decoded from protobuf or JSON, and answered in the same encoding."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any, Final, Literal, TypeVar

from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status

from sandbox.errors import InvalidInput, Kind, SandboxError

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

RecordKind = Literal["logs", "spans"]

MessageT = TypeVar("MessageT", bound=Message)

#: zlib's window bits for each `Content-Encoding`.
_ENCODINGS = {"gzip": 31, "deflate": 15}
_HEX_IDS = frozenset({"traceId", "spanId", "parentSpanId"})


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


def read(body: bytes, kind: str, message: type[MessageT]) -> MessageT:
    """Decode a body of this media type. Raises Malformed."""
    try:
        if kind == PROTOBUF:
            return message.FromString(body)
        parsed = json.loads(body, object_hook=_base64_ids)
        if not isinstance(parsed, dict):
            raise Malformed("The body is not a JSON object.", hint="Send OTLP in its JSON encoding.")
        return ParseDict(parsed, message(), ignore_unknown_fields=True)
    except (DecodeError, ParseError, ValueError, TypeError, RecursionError) as error:
        raise Malformed(
            f"The body is not an OTLP {message.DESCRIPTOR.name}.", hint="Check Content-Type and the exporter's version."
        ) from error


def write(message: Message, kind: str) -> bytes:
    """Encode a message in this media type."""
    return message.SerializeToString() if kind == PROTOBUF else MessageToJson(message, indent=None).encode()


def write_error(text: str, kind: str) -> bytes:
    """Encode an error as OTLP specifies: a `google.rpc.Status`."""
    return write(Status(message=text), kind)


def _base64_ids(node: dict[str, Any]) -> dict[str, Any]:
    """Convert ids from hex, as OTLP's JSON has them, to base64, as protobuf's JSON has bytes."""
    for name in _HEX_IDS & node.keys():
        value = node[name]
        if isinstance(value, str):
            node[name] = base64.b64encode(bytes.fromhex(value)).decode()
    return node
