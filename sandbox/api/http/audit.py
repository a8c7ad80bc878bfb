"""Records in the audit log what requests do: the one place for all routes.

What a request does follows from its method and path. An entry is written before the answer begins. Only for the use of
a sandbox (commands, files, terminals) it follows within about a second: such requests go on without the database.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote
from uuid import UUID

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.access.audit import AuditLog, Entry, Outcome
from sandbox.access.identity import identity_of
from sandbox.domain.caller import Caller
from sandbox.telemetry import context

#: Requests (method and path below /api/v1) and what they do. The group is the resource; where there is none, it is the
#: last part of the answer's `Location`.
_CHANGES: Final = {
    r"POST sessions": "session.create",
    r"DELETE sessions/([^/]+)": "session.terminate",
    r"POST sessions/([^/]+)/relaunch": "session.relaunch",
    r"POST sessions/([^/]+)/recover": "session.recover",
    r"POST sessions/([^/]+)/renew": "session.renew",
    r"PUT projects/([^/]+)": "project.upload",
    r"DELETE projects/([^/]+)": "project.delete",
    r"POST tokens": "token.create",
    r"DELETE tokens/([^/]+)": "token.revoke",
    r"POST sign-in-links": "sign_in.link",
    r"PUT secrets/([^/]+)": "secret.set",
    r"DELETE secrets/([^/]+)": "secret.remove",
    r"PUT alert-rules/([^/]+)": "alert_rule.set",
    r"DELETE alert-rules/([^/]+)": "alert_rule.remove",
    r"DELETE cache": "cache.clear",
    r"POST admin/retention": "records.delete",
    r"POST admin/recovery(?:/.*)?": "recovery.run",
}
#: Uses of a sandbox.
_USES: Final = {
    r"POST sessions/([^/]+)/exec": "session.exec",
    r"WEBSOCKET sessions/([^/]+)/terminal": "session.terminal",
    r"(?:PUT|POST|DELETE) sessions/([^/]+)/files(?:/.*)?": "session.write_files",
    r"(?:POST|DELETE) sessions/([^/]+)/processes(?:/.*)?": "session.signal",
}
#: The console's own paths.
_BROWSERS: Final = {
    r"POST /": "sign_in.browser",
    r"GET /sign-in": "sign_in.browser",
    r"POST /logout": "sign_in.end",
}
_API: Final = "/api/v1/"


@dataclass(frozen=True, slots=True)
class Deed:
    """What a request does."""

    #: Such as `session.create`; the part before the dot is the kind of the resource.
    action: str
    resource: str | None
    #: Whether the entry is there before the answer.
    before_answer: bool


def _compiled(table: dict[str, str]) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern), action) for pattern, action in table.items()]


_OF_API: Final = [*((*each, True) for each in _compiled(_CHANGES)), *((*each, False) for each in _compiled(_USES))]
_OF_CONSOLE: Final = [(*each, True) for each in _compiled(_BROWSERS)]


def deed_of(method: str, path: str) -> Deed | None:
    """What a request does that is recorded; None for what only reads, and for the platform's records."""
    of_api = path.startswith(_API)
    request = f"{method} {path.removeprefix(_API).rstrip('/') if of_api else path}"
    for pattern, action, before_answer in _OF_API if of_api else _OF_CONSOLE:
        if found := pattern.fullmatch(request):
            return Deed(action, found[1] if pattern.groups else None, before_answer)
    return None


class Audited:
    """The middleware. It stands behind admission, which identifies the caller."""

    def __init__(self, app: ASGIApp, audit: AuditLog) -> None:
        self._app = app
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        deed = deed_of(scope["method"] if scope["type"] == "http" else "WEBSOCKET", scope["path"])
        if deed is None:
            await self._app(scope, receive, send)
            return
        recorded = False

        async def forward(message: Message) -> None:
            nonlocal recorded
            if not recorded and (answered := _status(message)) is not None:
                recorded = True
                await self._record(scope, deed, answered, _location(message))
            await send(message)

        try:
            await self._app(scope, receive, forward)
        finally:
            if not recorded:
                await self._record(scope, deed, None, None)

    async def _record(self, scope: Scope, deed: Deed, status: int | None, location: str | None) -> None:
        """Record the deed of a known caller. Requests without a valid credential change nothing."""
        caller = identity_of(scope)
        if not isinstance(caller, Caller):
            return
        connection, resource = HTTPConnection(scope), deed.resource or location
        entry = Entry(
            user_id=caller.user_id,
            role=caller.role.value,
            token_id=UUID(caller.token_id),
            action=deed.action,
            resource_kind=deed.action.partition(".")[0],
            resource=resource[:300] if resource else None,
            outcome=_outcome(status),
            status=status,
            request_id=context.current().request_id,
            address=connection.client.host if connection.client else None,
        )
        if deed.before_answer:
            await self._audit.write(entry)
        else:
            self._audit.note(entry)


def _status(message: Message) -> int | None:
    """The status of an answer that begins with this message; None if none does."""
    match message["type"]:
        case "http.response.start" | "websocket.http.response.start":
            return int(message["status"])
        case "websocket.accept":
            return 101
        case "websocket.close":
            return 403
    return None


def _location(message: Message) -> str | None:
    """The id of what was made, from the `Location` of an answer 201 or 202."""
    if message.get("status") not in (201, 202):
        return None
    location = Headers(raw=message.get("headers", [])).get("location", "")
    return unquote(location.rpartition("/")[2]) or None


def _outcome(status: int | None) -> Outcome:
    if status is None or status >= 500:
        return "failed"
    return "refused" if status >= 400 else "succeeded"
