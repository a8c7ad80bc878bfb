"""What becomes of an OTLP body, however it came in: rows that are written, and an answer as OTLP has it.

What is answered with 200 is written. When records come faster than they are written the answer is 429, when PostgreSQL
is away 503, each with `Retry-After`; exporters then send the same again, and a span that is there is not doubled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sandbox.errors import Kind, SandboxError
from sandbox.statuses import RETRY_AFTER_SECONDS, STATUS
from sandbox.telemetry.metrics.figures import INTAKE
from sandbox.telemetry.otlp import messages
from sandbox.telemetry.otlp.decoding import Decoder, RecordKind
from sandbox.telemetry.otlp.mapping import Mapped
from sandbox.telemetry.otlp.owner import Owner
from sandbox.telemetry.recorder import Recorder

#: Exporters give up after ten seconds by default.
WRITE_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the exporter is told."""

    status: int
    body: bytes
    media_type: str
    headers: dict[str, str] = field(default_factory=dict)


class Receiver:
    """Takes bodies. Of one event loop."""

    def __init__(self, recorder: Recorder, decoder: Decoder) -> None:
        self._recorder = recorder
        self._decoder = decoder

    async def take(
        self, what: RecordKind, body: bytes, content_type: str, encoding: str, owner: Owner | None
    ) -> Answer:
        """Write the records of a body; `owner` None lets them say whose they are. Refusals are answers."""
        kind = messages.PROTOBUF
        try:
            kind = messages.media_type(content_type)
            mapped = await self._decoder.decode(what, body, kind, encoding, owner)
            INTAKE.labels(what, "rejected").inc(mapped.rejected)
            await self._keep(what, mapped)
        except SandboxError as error:
            return refusal(error, kind)
        return Answer(HTTPStatus.OK, messages.write(_success(what, mapped), kind), kind)

    async def _keep(self, what: RecordKind, mapped: Mapped) -> None:
        logs, spans = (mapped.rows, ()) if what == "logs" else ((), mapped.rows)
        try:
            await self._recorder.keep(logs, spans, WRITE_SECONDS)
        except SandboxError:
            INTAKE.labels(what, "pushed_back").inc(len(mapped.rows))
            raise
        INTAKE.labels(what, "written").inc(len(mapped.rows))


def refusal(error: SandboxError, kind: str) -> Answer:
    """OTLP's own form of a failure, in this media type. Our own mistakes are raised."""
    if error.kind is Kind.INTERNAL:
        raise error
    status = HTTPStatus.BAD_REQUEST if isinstance(error, messages.Malformed) else HTTPStatus(STATUS[error.kind])
    headers = {}
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    elif status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="sandbox"'
    text = f"{error.code}: {error.message} {error.hint}".strip()
    return Answer(status, messages.write_error(text, kind), kind, headers)


def _success(what: RecordKind, mapped: Mapped) -> Message:
    if what == "logs":
        logs = ExportLogsServiceResponse()
        if mapped.rejected:
            logs.partial_success.rejected_log_records = mapped.rejected
            logs.partial_success.error_message = mapped.reason
        return logs
    spans = ExportTraceServiceResponse()
    if mapped.rejected:
        spans.partial_success.rejected_spans = mapped.rejected
        spans.partial_success.error_message = mapped.reason
    return spans
