"""`/v1/traces` and `/v1/logs`: OTLP over HTTP, protobuf and JSON, as any OpenTelemetry exporter sends it.

What is answered with 200 is written. When records come faster than they are written the answer is 429, when PostgreSQL
is away 503, each with `Retry-After`; exporters then send the same again, and a span that is there is not doubled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sandbox.api.auth import require_caller
from sandbox.api.problems import RETRY_AFTER_SECONDS
from sandbox.api.services import Injected, Services
from sandbox.api.uploads import read_body
from sandbox.errors import Kind, SandboxError
from sandbox.statuses import STATUS
from sandbox.telemetry.metrics.figures import INTAKE
from sandbox.telemetry.otlp import messages
from sandbox.telemetry.otlp.decoding import RecordKind
from sandbox.telemetry.otlp.mapping import Mapped

router = APIRouter(prefix="/v1", tags=["OpenTelemetry"])

#: Exporters give up after ten seconds by default.
WRITE_SECONDS = 8.0

_ERRORS: dict[int | str, dict[str, Any]] = {
    "default": {"description": "An error, as `google.rpc.Status` in the encoding of the request"}
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in (messages.PROTOBUF,)}
        | {messages.JSON: {"schema": {"type": "object"}}},
    }
}


@router.post("/traces", response_class=Response, openapi_extra=_BODY, responses=_ERRORS)
async def export_traces(request: Request, services: Injected) -> Response:
    """Take spans. A user's are that user's; an admin's may name their user in `user.id`."""

    async def keep(mapped: Mapped) -> Message:
        await services.intake.keep((), mapped.rows, WRITE_SECONDS)
        answer = ExportTraceServiceResponse()
        if mapped.rejected:
            answer.partial_success.rejected_spans = mapped.rejected
            answer.partial_success.error_message = mapped.reason
        return answer

    return await _export(request, services, "spans", keep)


@router.post("/logs", response_class=Response, openapi_extra=_BODY, responses=_ERRORS)
async def export_logs(request: Request, services: Injected) -> Response:
    """Take log records, likewise."""

    async def keep(mapped: Mapped) -> Message:
        await services.intake.keep(mapped.rows, (), WRITE_SECONDS)
        answer = ExportLogsServiceResponse()
        if mapped.rejected:
            answer.partial_success.rejected_log_records = mapped.rejected
            answer.partial_success.error_message = mapped.reason
        return answer

    return await _export(request, services, "logs", keep)


async def _export(
    request: Request, services: Services, what: RecordKind, keep: Callable[[Mapped], Awaitable[Message]]
) -> Response:
    kind = messages.PROTOBUF
    try:
        caller = await require_caller(request)
        kind = messages.media_type(request.headers.get("content-type", ""))
        body = await read_body(request, services.settings.max_intake_mb * 1024 * 1024)
        encoding = request.headers.get("content-encoding", "")
        mapped = await services.decoder.decode(what, body, kind, encoding, None if caller.is_admin else caller.user_id)
        INTAKE.labels(what, "rejected").inc(mapped.rejected)
        try:
            answer = await keep(mapped)
        except SandboxError:
            INTAKE.labels(what, "pushed_back").inc(len(mapped.rows))
            raise
        INTAKE.labels(what, "written").inc(len(mapped.rows))
    except SandboxError as error:
        return _refusal(error, kind)
    return Response(messages.write(answer, kind), media_type=kind)


def _refusal(error: SandboxError, kind: str) -> Response:
    """OTLP's own form of a failure, in the media type of the request."""
    if error.kind is Kind.INTERNAL:
        raise error
    status = HTTPStatus.BAD_REQUEST if isinstance(error, messages.Malformed) else STATUS[error.kind]
    headers = {}
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    elif status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="sandbox"'
    text = f"{error.code}: {error.message} {error.hint}".strip()
    return Response(messages.write_error(text, kind), status_code=status, media_type=kind, headers=headers)
