"""The proxy's own responses: an HTML page or a problem document (RFC 9457), depending on the Accept header."""

from __future__ import annotations

import json
import string
from dataclasses import dataclass
from html import escape
from importlib import resources

from starlette.types import Scope

from sandbox.domain.hosts import ANSWER_HEADER
from sandbox.domain.session import SessionStatus
from sandbox.errors import GuestError, Kind, SandboxError
from sandbox.preview.headers import Headers, values
from sandbox.preview.target import PreviewTarget
from sandbox.statuses import STATUS

_TEMPLATE = string.Template(resources.files(__package__).joinpath("page.html").read_text("utf-8"))
_RETRY_SECONDS = 2
#: A request that the proxy cannot take is malformed as HTTP, not by a rule of the API.
_STATUS = {**STATUS, Kind.INVALID: 400}
#: Nothing but the page's own style: it runs no script and loads nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of the proxy itself. With `retry_seconds` the page reloads itself after that time."""

    status: int
    code: str
    title: str
    message: str
    hint: str = ""
    stage: str | None = None
    retry_seconds: int | None = None

    def render(self, scope: Scope, request_id: str) -> tuple[Headers, bytes]:
        """Headers and body for this client."""
        if wants_html(scope):
            content_type, body = "text/html; charset=utf-8", self._page(request_id)
        else:
            content_type, body = "application/problem+json", self._problem(request_id)
        headers = {
            "content-type": content_type,
            "content-length": str(len(body)),
            "cache-control": "no-store",
            "content-security-policy": _POLICY,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "vary": "Accept",
            "x-request-id": request_id,
            ANSWER_HEADER: self.code,
        }
        if self.retry_seconds is not None:
            headers["retry-after"] = str(self.retry_seconds)
        return [(name.encode(), value.encode()) for name, value in headers.items()], body

    def _problem(self, request_id: str) -> bytes:
        problem: dict[str, object] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.message,
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "request_id": request_id,
        }
        if self.stage is not None:
            problem["stage"] = self.stage
        return json.dumps(problem, ensure_ascii=False).encode()

    def _page(self, request_id: str) -> bytes:
        refresh = "" if self.retry_seconds is None else f'<meta http-equiv="refresh" content="{self.retry_seconds}">'
        stage = "" if self.stage is None else f'<p class="stage">Stage: <b>{escape(self.stage)}</b></p>'
        waiting = (
            "" if self.retry_seconds is None else '<p class="wait" role="status">This page tries again by itself.</p>'
        )
        return _TEMPLATE.substitute(
            title=escape(self.title),
            message=escape(self.message),
            hint=escape(self.hint),
            code=escape(self.code),
            request_id=escape(request_id),
            refresh=refresh,
            stage=stage,
            waiting=waiting,
        ).encode()


def wants_html(scope: Scope) -> bool:
    """Whether the client asks for HTML by name, as browsers do when they open a page."""
    accepted = ",".join(values(scope["headers"], b"accept")).lower()
    return any(part.partition(";")[0].strip() in ("text/html", "application/xhtml+xml") for part in accepted.split(","))


def not_found() -> Answer:
    """One answer for no such session, somebody else's, and a link or cookie that is missing, forged or expired."""
    return Answer(
        404,
        "not_found",
        "Nothing to see here",
        "There is no such preview, or this browser has no valid link to it. Links to previews expire.",
        "Open the preview again from the console, or take a new preview_url from the API.",
    )


def of_status(target: PreviewTarget) -> Answer | None:
    """What the session's status says by itself; None if its app may be up."""
    if target.status is SessionStatus.TERMINATED:
        return Answer(
            410,
            "session_gone",
            "This session is over",
            "Its containers and files have been removed.",
            "Start a new session of the project from the console or the API.",
        )
    if target.status is SessionStatus.ERROR:
        error = target.error
        return Answer(
            502,
            error.code if error else "session_error",
            "This session failed",
            error.message if error else "The session is in error and no cause was recorded.",
            (error.hint if error else "") or "Look at its launch log, then relaunch or recover it.",
            stage=(error.stage if error else None) or target.pipeline_stage,
        )
    if target.status is SessionStatus.CREATING:
        return Answer(
            503,
            "preview_not_ready",
            "Starting",
            "The session is being launched; its app does not answer yet.",
            "The launch can be followed in the console.",
            stage=target.pipeline_stage,
            retry_seconds=_RETRY_SECONDS,
        )
    return None


def nothing_served(target: PreviewTarget) -> Answer:
    """The session is up and its plan names no port."""
    return Answer(
        503,
        "preview_not_ready",
        "Nothing is served yet",
        "The session is up, but it has no preview port: nothing was started in it.",
        "Start a server in it and open {port}-" + f"{target.session_id}, or launch a project.",
        stage=target.pipeline_stage,
        retry_seconds=_RETRY_SECONDS,
    )


def port_silent(target: PreviewTarget, port: int, error: GuestError) -> Answer:
    """The session is up and the port does not answer."""
    closed = error.code == "port_not_open"
    return Answer(
        503,
        "preview_not_ready",
        "The app does not answer yet",
        f"Nothing listens on port {port} in this session." if closed else f"The container does not answer: {error}",
        "Start the app, or look at its log: it may have stopped or listen on another port." if closed else error.hint,
        stage=target.pipeline_stage,
        retry_seconds=_RETRY_SECONDS,
    )


def app_hung_up(target: PreviewTarget, port: int) -> Answer:
    """Something listens on the port, and gave no HTTP answer."""
    return Answer(
        502,
        "app_hung_up",
        "The app did not answer",
        f"The app on port {port} accepted the connection but gave no HTTP answer.",
        "Look at the app's log; it may have crashed on this request, or may not speak HTTP on this port.",
        stage=target.pipeline_stage,
    )


def no_edge() -> Answer:
    """The request did not come through the edge."""
    return Answer(
        503,
        "previews_unavailable",
        "No previews here",
        "This service runs without the proxy in front that previews need.",
        "Start it with: sandbox up, or: sandbox serve",
    )


def of_error(error: SandboxError) -> Answer:
    """An error on the way, as any other part of the service would report it."""
    retry = 1 if error.kind is Kind.TOO_MANY else None
    title = "The preview cannot be shown"
    return Answer(_STATUS[error.kind], error.code, title, error.message, error.hint, retry_seconds=retry)
