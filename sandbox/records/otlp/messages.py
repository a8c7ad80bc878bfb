"""OTLP/HTTP bodies: unpacked within bounds, read as protobuf or JSON, answered in kind."""

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

#: zlib's window bits: what of each encoding it expects.
_ENCODINGS = {"gzip": 31, "deflate": 15}
_HEX_IDS = frozenset({"traceId", "spanId", "parentSpanId"})


class EncodingUnknown(SandboxError):
    """The body is packed, or written, in a way that is not taken."""

    code = "encoding_unsupported"
    kind = Kind.UNSUPPORTED


class UnpackedTooLarge(SandboxError):
    """The body is larger than is taken, once it is unpacked."""

    code = "body_too_large"
    kind = Kind.TOO_LARGE


class Malformed(InvalidInput):
    """The body is not what its headers say. 400, as OTLP has it: sending it again cannot help."""

    code = "malformed_request"


def media_type(content_type: str) -> str:
    """`PROTOBUF` or `JSON`. Raises EncodingUnknown."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in (PROTOBUF, JSON):
        return kind
    raise EncodingUnknown(f"Only {PROTOBUF} and {JSON} are taken.", hint="Use OTLP over HTTP.")


def answer_type(content_type: str) -> str:
    """The media type that a refusal of a body of this type has, whatever is wrong with it."""
    return JSON if content_type.partition(";")[0].strip().lower() == JSON else PROTOBUF


def unpack(body: bytes, encoding: str, most: int) -> bytes:
    """The body as it was before `Content-Encoding`. No more than `most` bytes are ever unpacked.

    Raises EncodingUnknown, UnpackedTooLarge, Malformed.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _ENCODINGS:
        raise EncodingUnknown("Only gzip and deflate are unpacked.", hint="Send gzip, or nothing packed.")
    unpacked = bytearray()
    while body:
        unpacker = zlib.decompressobj(_ENCODINGS[encoding])
        try:
            unpacked += unpacker.decompress(body, most + 1 - len(unpacked))
        except zlib.error as error:
            raise Malformed(f"The body is not {encoding}.", hint="Check Content-Encoding.") from error
        if len(unpacked) > most:
            raise UnpackedTooLarge(f"The body is larger than {most:,} bytes unpacked.", hint="Send smaller batches.")
        if not unpacker.eof:
            raise Malformed(f"The {encoding} body ends too early.", hint="Send it again, whole.")
        body = unpacker.unused_data
    return bytes(unpacked)


def read(body: bytes, kind: str, message: type[MessageT]) -> MessageT:
    """A body of this media type as a message. Raises Malformed."""
    try:
        if kind == PROTOBUF:
            return message.FromString(body)
        parsed = json.loads(body, object_hook=_plain_ids)
        if not isinstance(parsed, dict):
            raise Malformed("The body is not a JSON object.", hint="Send OTLP in its JSON encoding.")
        return ParseDict(parsed, message(), ignore_unknown_fields=True)
    except (DecodeError, ParseError, ValueError, TypeError, RecursionError) as error:
        raise Malformed(
            f"The body is not an OTLP {message.DESCRIPTOR.name}.", hint="Check Content-Type and the exporter's version."
        ) from error


def write(message: Message, kind: str) -> bytes:
    """An answer in the media type of the question."""
    return message.SerializeToString() if kind == PROTOBUF else MessageToJson(message, indent=None).encode()


def write_error(text: str, kind: str) -> bytes:
    """A failure as OTLP has it."""
    return write(Status(message=text), kind)


def _plain_ids(node: dict[str, Any]) -> dict[str, Any]:
    """OTLP's JSON writes ids in hex; protobuf's JSON reads bytes as base64."""
    for name in _HEX_IDS & node.keys():
        value = node[name]
        if isinstance(value, str):
            node[name] = base64.b64encode(bytes.fromhex(value)).decode()
    return node
