"""`/v1/traces` and `/v1/logs`: OTLP over HTTP, in protobuf and JSON, for any OpenTelemetry exporter."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from sandbox.api.http.auth import exports_token, require_caller
from sandbox.api.http.services import Injected, Services
from sandbox.api.http.uploads import read_body
from sandbox.errors import SandboxError
from sandbox.records.otlp import messages
from sandbox.records.otlp.messages import RecordKind
from sandbox.records.otlp.outcome import Refused
from sandbox.records.otlp.owner import Owner
from sandbox.records.otlp.receiver import Answer, answer
from sandbox.telemetry import context

router = APIRouter(prefix="/v1", tags=["OpenTelemetry"])

#: Requests to these paths are not traced: the records about them would be as many as the records that they bring.
PATHS = frozenset({"/v1/traces", "/v1/logs"})

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
    """Store spans. They belong to the caller; those of an admin may name their user in `user.id`. Spans sent with the
    token of a session belong to that session and its user, and count towards the number that it may send."""
    return await _export(request, services, "spans")


@router.post("/logs", response_class=Response, openapi_extra=_BODY, responses=_ERRORS)
async def export_logs(request: Request, services: Injected) -> Response:
    """Store log records, with the same rules."""
    return await _export(request, services, "logs")


async def _export(request: Request, services: Services, what: RecordKind) -> Response:
    content_type = request.headers.get("content-type", "")
    try:
        owner = await _owner(request, services)
        messages.media_type(content_type)
        body = await read_body(request, services.settings.max_intake_mb * 1024 * 1024)
    except SandboxError as error:
        return _response(answer(Refused.from_error(error), what, content_type))
    encoding = request.headers.get("content-encoding", "")
    if owner is not None and owner.session_id is not None:
        return _response(await services.exports.accept(what, body, content_type, encoding, owner))
    outcome = await services.receiver.accept(what, body, content_type, encoding, owner)
    return _response(answer(outcome, what, content_type))


async def _owner(request: Request, services: Services) -> Owner | None:
    """The owner of the records; None if the records may name their user themselves."""
    token = exports_token(request)
    if token is not None:
        owner = await services.exports.owner(token)
        context.set_user(owner.user_id)
        return owner
    caller = await require_caller(request)
    return None if caller.is_admin else Owner(caller.user_id)


def _response(given: Answer) -> Response:
    return Response(given.body, given.status, given.headers, given.media_type)
