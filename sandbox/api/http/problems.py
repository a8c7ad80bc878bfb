"""Every error as RFC 9457 `application/problem+json`: one shape, a stable code, and the request's id.

`type` is `urn:purple8-sandbox:problem:{code}`. An exception that is not a SandboxError is answered as `internal_error`;
its stack trace is logged and not sent.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket, WebSocketState

from sandbox.errors import InvalidInput, Kind, SandboxError, Unavailable
from sandbox.statuses import RETRY_AFTER_SECONDS, STATUS
from sandbox.telemetry import context

MEDIA_TYPE = "application/problem+json"
MAX_FIELD_ERRORS = 20

_HTTP_CODES = {
    400: ("malformed_request", "Check that the body is what its Content-Type says."),
    404: ("route_not_found", "The routes are listed at /docs."),
    405: ("method_not_allowed", "The methods of this route are in the Allow header."),
    413: ("body_too_large", "Send a smaller body."),
}
#: WebSocket close codes (RFC 6455 and its registry) by the kind of failure.
_POLICY_VIOLATION, _INTERNAL_ERROR, _TRY_AGAIN_LATER = 1008, 1011, 1013
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]+")
#: The status that nginx logs, but never sends, for a client that has disconnected.
_CLIENT_GONE = 499

logger = logging.getLogger(__name__)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    hint: str = "",
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A problem response. 401 carries `WWW-Authenticate`, 429 and 503 `Retry-After` unless `headers` say otherwise."""
    body: dict[str, Any] = {
        "type": f"urn:purple8-sandbox:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "code": code,
        "detail": detail,
        "hint": hint,
        "request_id": context.current().request_id,
    }
    if errors:
        body["errors"] = [dict(error) for error in errors]
    sent = {}
    if status == HTTPStatus.UNAUTHORIZED:
        sent["WWW-Authenticate"] = 'Bearer realm="sandbox"'
    elif status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        sent["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return JSONResponse(body, status_code=status, headers=sent | dict(headers or {}), media_type=MEDIA_TYPE)


def render(error: SandboxError) -> JSONResponse:
    """A SandboxError as a problem. An internal one is logged with its stack trace; its message is not sent."""
    status = STATUS[error.kind]
    if error.kind is Kind.INTERNAL:
        return internal_error(error)
    if error.kind in (Kind.UNAVAILABLE, Kind.TIMEOUT):
        logger.warning("%s: %s", error.code, error, extra={"code": error.code})
    return problem(status, error.code, error.message, hint=error.hint)


def operating_system_error(error: OSError) -> JSONResponse:
    """The response to an error of the operating system: `disk_full` if the service's disk has no room left."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return internal_error(error)
    full = Unavailable(
        f"The service has no disk space left: {error.strerror}.",
        hint="Free disk space on its machine.",
        code="disk_full",
    )
    return render(full)


def internal_error(error: BaseException) -> JSONResponse:
    """The response to an unexpected exception, which is logged here with its stack trace."""
    logger.error("unexpected %s while answering a request", type(error).__name__, exc_info=error)
    return problem(
        500,
        "internal_error",
        "The service made a mistake while answering this request.",
        hint="The service's log has the cause under this request_id.",
    )


def install(app: FastAPI) -> None:
    """Make `app` answer every error it raises with a problem."""

    app.add_exception_handler(SandboxError, _handler(lambda _, error: render(error)))
    for invalid in (RequestValidationError, WebSocketRequestValidationError):
        app.add_exception_handler(invalid, _handler(lambda _, error: _invalid_request(error.errors())))
    app.add_exception_handler(UnicodeEncodeError, _handler(lambda _, error: _not_unicode(error)))
    app.add_exception_handler(HTTPException, _handler(_http_exception))
    # Without this handler Starlette answers in plain text. With it, Starlette still raises the exception afterwards.
    app.add_exception_handler(Exception, _handler(lambda _, error: internal_error(error)))
    app.add_exception_handler(OSError, _handler(lambda _, error: operating_system_error(error)))
    app.add_exception_handler(ClientDisconnect, _handler(lambda _, __: Response(status_code=_CLIENT_GONE)))


async def refuse_websocket(websocket: WebSocket, response: Response, *, accepted: bool) -> None:
    """Answer a WebSocket with `response`: as the refusal of its handshake, or, once accepted, as a close frame."""
    if not accepted and "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(response)
        return
    if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        code = _TRY_AGAIN_LATER
    else:
        code = _INTERNAL_ERROR if response.status_code >= 500 else _POLICY_VIOLATION
    await websocket.close(code, reason=HTTPStatus(response.status_code).phrase)


def _handler(make: Callable[[HTTPConnection, Any], Response]) -> Any:
    async def handle(connection: HTTPConnection, error: Exception) -> Response | None:
        response = make(connection, error)
        if not isinstance(connection, WebSocket):
            return response
        accepted = connection.application_state is not WebSocketState.CONNECTING
        await refuse_websocket(connection, response, accepted=accepted)
        return None

    return handle


def _http_exception(connection: HTTPConnection, error: HTTPException) -> Response:
    if error.status_code < 400 or error.status_code in (204, 304):
        return Response(status_code=error.status_code, headers=error.headers)
    if isinstance(error.__cause__, SandboxError):  # FastAPI wraps errors that occur while the body is read.
        return render(error.__cause__)
    phrase = HTTPStatus(error.status_code).phrase
    code, hint = _HTTP_CODES.get(error.status_code, (phrase.lower().replace(" ", "_").replace("-", "_"), ""))
    path = _printable(connection.url.path, 200)
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"There is no {path} here."
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{path} does not answer {connection.scope.get('method', 'this method')}."
    else:
        detail = str(error.detail)
    return problem(error.status_code, code, detail, hint=hint, headers=error.headers)


def _invalid_request(errors: Sequence[Any]) -> JSONResponse:
    malformed = next((error for error in errors if error["type"] == "json_invalid"), None)
    if malformed is not None:
        position, cause = malformed["loc"][-1], malformed.get("ctx", {}).get("error", malformed["msg"])
        return problem(
            400, "malformed_json", f"The body is not JSON: {cause} at character {position}.", hint="Send valid JSON."
        )
    fields = [_field_error(error) for error in errors[:MAX_FIELD_ERRORS]]
    detail = "; ".join(f"{error['field']}: {error['message']}" for error in fields)
    if len(errors) > MAX_FIELD_ERRORS:
        detail += f"; and {len(errors) - MAX_FIELD_ERRORS} more"
    return problem(
        STATUS[Kind.INVALID],
        InvalidInput.code,
        f"The request is not valid. {detail}",
        hint="Correct the fields named in `errors`.",
        errors=fields,
    )


def _not_unicode(error: UnicodeEncodeError) -> JSONResponse:
    """JSON can hold halves of surrogate pairs, which no text can: they can be neither stored nor sent."""
    logger.warning("a text of a request is not Unicode: %s", error.reason)
    return problem(
        STATUS[Kind.INVALID],
        InvalidInput.code,
        "A text of the request is not valid Unicode.",
        hint="Send whole characters, no halves of surrogate pairs.",
    )


def _field_error(error: Mapping[str, Any]) -> dict[str, str]:
    # The input itself is not repeated: it may be secret, and it may be large.
    location, *path = [str(part) for part in error["loc"]] or ["request"]
    return {
        "in": location,
        "field": _printable(".".join(path) or location, 200),
        "message": _printable(str(error["msg"]).removeprefix("Value error, "), 500),
        "code": str(error["type"]),
    }


def _printable(text: str, limit: int) -> str:
    text = _UNPRINTABLE.sub("?", text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
