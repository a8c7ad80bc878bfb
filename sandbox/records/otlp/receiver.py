"""Accepts OTLP bodies from every entry point, and answers them as OTLP specifies.

The answer is 200 once the records are committed. It is 429 when records come faster than they are written and 503 when
PostgreSQL is down or there is less disk space than the reserve, each with `Retry-After`. Exporters then send the same
body again; a span that is sent twice is stored once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sandbox.errors import Kind, SandboxError
from sandbox.records.otlp import messages
from sandbox.records.otlp.intake import Intake
from sandbox.records.otlp.messages import RecordKind
from sandbox.records.otlp.outcome import TOO_MANY_RECORDS, Outcome, Refused, Stored
from sandbox.records.otlp.owner import Owner
from sandbox.records.otlp.worker import Body
from sandbox.records.space import RecordSpace
from sandbox.statuses import RETRY_AFTER_SECONDS, STATUS
from sandbox.telemetry.metrics.collectors import INTAKE, PUSHED_BACK


@dataclass(frozen=True, slots=True)
class Answer:
    """The HTTP response to an exporter."""

    status: int
    body: bytes
    media_type: str
    headers: dict[str, str] = field(default_factory=dict)


class Receiver:
    """Passes bodies to the intake and counts the outcomes. Not thread-safe."""

    def __init__(self, intake: Intake, space: RecordSpace, *, require_room: Callable[[], None] = lambda: None) -> None:
        """`require_room` raises `disk_low` while there is too little disk space for something new."""
        self._intake = intake
        self._space = space
        self._require_room = require_room

    async def accept(
        self,
        what: RecordKind,
        body: bytes,
        content_type: str,
        encoding: str,
        owner: Owner | None,
        max_records: int | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Store the records of a body. With more than `max_records` it is refused with the code TOO_MANY_RECORDS.

        `owner` is the user whose records these are; None if the records themselves may name their user. Values of
        `secrets` are taken out of them.
        """
        try:
            media_type = messages.media_type(content_type)
        except messages.EncodingUnknown as error:
            return Refused.from_error(error)
        try:
            if owner is not None:
                self._space.require(owner.user_id)
            self._require_room()
        except SandboxError as error:
            if error.kind is Kind.UNAVAILABLE:
                PUSHED_BACK.labels(what).inc()
            return Refused.from_error(error)
        outcome = await self._intake.store(Body(what, body, media_type, encoding, owner, max_records, secrets or {}))
        if isinstance(outcome, Stored):
            INTAKE.labels(what, "written").inc(outcome.written)
            INTAKE.labels(what, "rejected").inc(outcome.rejected)
            if owner is not None:
                self._space.add(owner.user_id, outcome.size)
        elif outcome.kind in (Kind.TOO_MANY, Kind.UNAVAILABLE) and outcome.code != TOO_MANY_RECORDS:
            PUSHED_BACK.labels(what).inc()
        return outcome


def answer(outcome: Outcome, what: RecordKind, content_type: str) -> Answer:
    """The response to a request of this content type."""
    media_type = messages.answer_type(content_type)
    if isinstance(outcome, Stored):
        return Answer(HTTPStatus.OK, messages.write(_success(what, outcome), media_type), media_type)
    # OTLP asks for 400 where the rest of the API answers 422.
    malformed = outcome.code == messages.Malformed.code
    status = HTTPStatus.BAD_REQUEST if malformed else HTTPStatus(STATUS[outcome.kind])
    headers = {}
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers["Retry-After"] = str(outcome.retry_after_seconds or RETRY_AFTER_SECONDS)
    elif status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="sandbox"'
    text = f"{outcome.code}: {outcome.message} {outcome.hint}".strip()
    return Answer(status, messages.write_error(text, media_type), media_type, headers)


def _success(what: RecordKind, stored: Stored) -> Message:
    if what == "logs":
        logs = ExportLogsServiceResponse()
        if stored.rejected:
            logs.partial_success.rejected_log_records = stored.rejected
            logs.partial_success.error_message = stored.reason
        return logs
    spans = ExportTraceServiceResponse()
    if stored.rejected:
        spans.partial_success.rejected_spans = stored.rejected
        spans.partial_success.error_message = stored.reason
    return spans
