"""The outermost middleware: gives each request an id, a span and a line in the access log, and answers exceptions.

Plain ASGI without buffering: streams and WebSockets pass message by message; their span and log line are written when
they end.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from opentelemetry.trace import INVALID_SPAN, Span
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from sandbox.api.http.problems import internal_error, refuse_websocket
from sandbox.telemetry import context
from sandbox.telemetry.metrics.collectors import observe_request
from sandbox.telemetry.tracing import Tracing, set_status

REQUEST_ID_HEADER = b"x-request-id"
_VALID_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,100}")
_SWITCHING_PROTOCOLS = 101
_MAX_LOGGED_PATH = 500
_PLAIN_PATH = re.compile(rf"[A-Za-z0-9/._-]{{1,{_MAX_LOGGED_PATH}}}")

access_log = logging.getLogger("sandbox.access")


class RequestMiddleware:
    """Wraps a whole application, so that errors of its other middlewares are answered too."""

    def __init__(
        self, app: ASGIApp, tracing: Tracing, untraced: Collection[str] = (), *, recorded: bool = True
    ) -> None:
        """Requests whose path is in `untraced` leave no span. If not `recorded`, none does, and none a line in the
        access log."""
        self._recorded = recorded
        self._app = app
        self._tracing = tracing
        self._untraced = untraced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id, traceparent = _request_id_and_traceparent(scope)
        # bind() and span() restore the context, because the server may use the same task for its next request.
        with context.bind(request_id=request_id) as bound, self._span(scope["path"], traceparent) as span:
            exchange = _Exchange(self._app, (scope, receive, send), request_id, span, bound)
            await exchange.run(recorded=self._recorded)

    def _span(self, path: str, traceparent: str | None) -> AbstractContextManager[Span]:
        if path in self._untraced or not self._recorded:
            return nullcontext(INVALID_SPAN)
        parent = self._tracing.remote_context(traceparent) if traceparent else None
        return self._tracing.span("request", parent=parent, kind="server")


_Asgi = tuple[Scope, Receive, Send]


class _Exchange:
    """One request in progress: forwards messages and records the response's status."""

    __slots__ = (
        "_app",
        "_complete",
        "_context",
        "_receive",
        "_request_id",
        "_scope",
        "_send",
        "_span",
        "_started",
        "_status",
    )

    def __init__(self, app: ASGIApp, asgi: _Asgi, request_id: str, span: Span, bound: context.LogContext) -> None:
        self._app = app
        self._scope, self._receive, self._send = asgi
        self._request_id = request_id
        self._span = span
        self._context = bound
        self._started = self._complete = False
        self._status: int | None = None

    async def run(self, *, recorded: bool) -> None:
        began = time.perf_counter()
        try:
            await self._app(self._scope, self._receive, self._forward)
        except Exception as error:  # noqa: BLE001 - no other code can answer
            await self._answer_unexpected(error)
        finally:
            if recorded:
                self._record(time.perf_counter() - began)

    async def _forward(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start" | "websocket.http.response.start":
                self._status = message["status"]
            case "websocket.accept":
                self._status = _SWITCHING_PROTOCOLS
            case "websocket.close" if not self._started:
                self._status = HTTPStatus.FORBIDDEN
            case _:
                await self._send(message)
                self._complete = message["type"] == "http.response.body" and not message.get("more_body", False)
                return
        self._started = True
        if message["type"] != "websocket.close":
            others = [header for header in message.get("headers", ()) if header[0].lower() != REQUEST_ID_HEADER]
            message = {**message, "headers": [*others, (REQUEST_ID_HEADER, self._request_id.encode())]}
        await self._send(message)

    async def _answer_unexpected(self, error: Exception) -> None:
        """Send a problem if no response has begun; abort one that is partly sent, so that the client notices."""
        self._span.record_exception(error)
        if self._complete:  # FastAPI's handler has answered and logged the cause.
            return
        response = internal_error(error)
        if self._scope["type"] == "http" and self._started:
            raise error
        if self._scope["type"] == "websocket":
            accepted = self._status == _SWITCHING_PROTOCOLS
            if accepted or not self._started:
                websocket = WebSocket(self._scope, self._receive, self._forward)
                await refuse_websocket(websocket, response, accepted=accepted)
        else:
            await response(self._scope, self._receive, self._forward)

    def _record(self, seconds: float) -> None:
        scope, status = self._scope, self._status
        is_http = scope["type"] == "http"
        method = scope["method"] if is_http else "WEBSOCKET"
        route = _route(scope)
        path: str = scope["path"]
        if not _PLAIN_PATH.fullmatch(path):
            path = quote(path, safe="/:@~!$&'()*+,;=-._")[:_MAX_LOGGED_PATH]
        duration_ms = round(seconds * 1000, 1)
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "url.path": path,
            "request_id": self._request_id,
        }
        if route:
            attributes["http.route"] = route
        if status is not None:
            attributes["http.response.status_code"] = int(status)
        if self._context.user_id is not None:
            attributes["user_id"] = self._context.user_id
        self._span.update_name(f"{method} {route}" if route else method)
        self._span.set_attributes(attributes)
        if status is None or status >= 500:
            set_status(self._span, "timeout" if status == HTTPStatus.GATEWAY_TIMEOUT else "error")
        shown = str(int(status)) if status is not None else "unanswered"
        observe_request(method, route, shown, seconds)
        access_log.info(
            "%s %s %s %.1f ms",
            method,
            path,
            shown,
            duration_ms,
            extra={"method": method, "path": path, "route": route, "status": status, "duration_ms": duration_ms},
        )


def _request_id_and_traceparent(scope: Scope) -> tuple[str, str | None]:
    request_id = traceparent = None
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER and _VALID_REQUEST_ID.fullmatch(value):
            request_id = value.decode("ascii")
        elif name == b"traceparent":
            traceparent = value.decode("latin-1")
    return request_id or secrets.token_hex(16), traceparent


def _route(scope: Scope) -> str | None:
    """The template of the route that matched, such as `/api/v1/sessions/{session_id}`; None if none did."""
    route = scope.get("route")
    template = getattr(route, "path_format", None) or getattr(route, "path", None)
    if not isinstance(template, str):
        return None
    # A route included under a prefix may have only its own part of the template: what precedes it is the prefix.
    within = sum(str(value).count("/") for value in scope.get("path_params", {}).values())
    parts = scope["path"].split("/")
    before = len(parts) - len(template.split("/")) - within
    return "/".join(parts[: before + 1]) + template if before > 0 else template
