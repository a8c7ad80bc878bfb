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
from sandbox.records.otlp import messages
from sandbox.records.otlp.intake import Intake
from sandbox.records.otlp.messages import RecordKind
from sandbox.records.otlp.owner import Owner
from sandbox.records.otlp.worker import Body, Kept, TooManyRecords
from sandbox.statuses import RETRY_AFTER_SECONDS, STATUS
from sandbox.telemetry.metrics.collectors import INTAKE, PUSHED_BACK


@dataclass(frozen=True, slots=True)
class Answer:
    """What the exporter is told."""

    status: int
    body: bytes
    media_type: str
    headers: dict[str, str] = field(default_factory=dict)
    #: Read from the body, written or rejected.
    records: int = 0


class Limited(SandboxError):
    """Whoever sends has sent all that it may for now."""

    code = "too_many_records"
    kind = Kind.TOO_MANY

    def __init__(self, message: str, *, hint: str, retry_after_seconds: int) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class Receiver:
    """Takes bodies. Of one event loop."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def take(
        self,
        what: RecordKind,
        body: bytes,
        content_type: str,
        encoding: str,
        owner: Owner | None,
        most_records: int | None = None,
    ) -> Answer:
        """Write the records of a body; `owner` None lets them say whose they are. Refusals are answers.

        Raises TooManyRecords if it has more than `most_records`; none is written then.
        """
        try:
            kind = messages.media_type(content_type)
            kept = await self._intake.store(Body(what, body, kind, encoding, owner, most_records))
        except TooManyRecords:
            raise
        except SandboxError as error:
            if error.kind in (Kind.TOO_MANY, Kind.UNAVAILABLE):
                PUSHED_BACK.labels(what).inc()
            return refusal(error, content_type)
        INTAKE.labels(what, "written").inc(kept.written)
        INTAKE.labels(what, "rejected").inc(kept.rejected)
        records = kept.written + kept.rejected
        return Answer(HTTPStatus.OK, messages.write(_success(what, kept), kind), kind, records=records)


def refusal(error: SandboxError, content_type: str) -> Answer:
    """OTLP's own form of a failure, for a body of this type. Our own mistakes are raised."""
    if error.kind is Kind.INTERNAL:
        raise error
    status = HTTPStatus.BAD_REQUEST if isinstance(error, messages.Malformed) else HTTPStatus(STATUS[error.kind])
    headers = {}
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        seconds = error.retry_after_seconds if isinstance(error, Limited) else RETRY_AFTER_SECONDS
        headers["Retry-After"] = str(seconds)
    elif status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="sandbox"'
    kind = messages.answer_type(content_type)
    text = f"{error.code}: {error.message} {error.hint}".strip()
    return Answer(status, messages.write_error(text, kind), kind, headers)


def _success(what: RecordKind, kept: Kept) -> Message:
    if what == "logs":
        logs = ExportLogsServiceResponse()
        if kept.rejected:
            logs.partial_success.rejected_log_records = kept.rejected
            logs.partial_success.error_message = kept.reason
        return logs
    spans = ExportTraceServiceResponse()
    if kept.rejected:
        spans.partial_success.rejected_spans = kept.rejected
        spans.partial_success.error_message = kept.reason
    return spans
