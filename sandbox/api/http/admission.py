"""Admission: decides about each request before its body is read.

The caller is identified first. What a caller has under way at once is bounded: requests, streams, terminals and bytes
of bodies, for each user and for all together; requests without a valid credential are bounded by address, and their
bodies are not read beyond what a sign-in form needs. What exceeds a bound is refused at once with 429 or 503.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from sandbox.access.identity import set_identity
from sandbox.access.signing import SignatureRefused, Signer
from sandbox.api.http.auth import Authenticator, exports_token, identify
from sandbox.api.http.bounds import Bound, Taken
from sandbox.api.http.hosts import HostNames
from sandbox.api.http.live import OpenConnections, TokenEnded
from sandbox.api.http.problems import refuse_websocket, render
from sandbox.api.http.uses import Activity, Body, Use, use_of
from sandbox.domain.caller import Caller
from sandbox.errors import Kind, SandboxError
from sandbox.settings import Settings

MIB = 1024 * 1024
#: All callers together may have so many times what one may have.
_ALL = 8
#: Bytes of bodies that one user may have in memory, and on disk, at once.
_MEMORY_PER_USER = 24 * MIB
_MEMORY_IN_TOTAL = 96 * MIB
_UPLOADS_PER_USER = 4
#: Requests without a valid credential that one address, and all, may have under way.
_UNKNOWN_PER_ADDRESS = 64
_UNKNOWN_IN_TOTAL = 256
#: Most bytes of a body without a valid credential; a sign-in form is shorter.
UNKNOWN_BODY_BYTES = 8192
#: A body whose length is not declared is counted in steps of this many bytes.
_STEP = 256 * 1024


class BodyTooLarge(SandboxError):
    """The body exceeds the limit."""

    code = "body_too_large"
    kind = Kind.TOO_LARGE

    def __init__(self, max_bytes: int, setting: str) -> None:
        super().__init__(f"the body is larger than {max_bytes:,} bytes", hint=f"Send less, or raise {setting}.")


class AccessEnded(SandboxError):
    """The token with which this was opened has been revoked or has expired."""

    code = "token_unknown"
    kind = Kind.UNAUTHENTICATED


@dataclass(frozen=True, slots=True)
class _Identified:
    """The sender of a request: its key for the bounds (None: only the totals apply), and the caller if it is one."""

    key: str | None
    is_known: bool
    caller: Caller | None = None


class Admission:
    """The middleware. Used from one event loop."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        tokens: Authenticator,
        signer: Signer,
        connections: OpenConnections,
    ) -> None:
        self._app = app
        self._settings = settings
        self._tokens = tokens
        self._signer = signer
        self._connections = connections
        self._hosts = HostNames(settings)
        per_user = {
            Activity.REQUEST: settings.requests_per_user,
            Activity.STREAM: settings.streams_per_user,
            Activity.TERMINAL: settings.terminals_per_user,
        }
        self._activities = {what: Bound(what.value, most, most * _ALL) for what, most in per_user.items()}
        uploads = settings.max_upload_mb * MIB * _UPLOADS_PER_USER
        largest = max(settings.max_intake_mb * MIB, settings.max_body_kb * 1024)
        self._bytes = {
            Body.MEMORY: Bound("bytes of requests", max(_MEMORY_PER_USER, largest), max(_MEMORY_IN_TOTAL, 2 * largest)),
            Body.DISK: Bound("bytes of uploads", uploads, uploads * _ALL),
        }
        self._unknown = Bound("requests without a valid token", _UNKNOWN_PER_ADDRESS, _UNKNOWN_IN_TOTAL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._hosts.check(scope)
            sender = await self._identify(scope)
        except SandboxError as error:
            await _refuse(error, scope, receive, send)
            return
        with Taken(sender.key) as taken:
            try:
                bounded = self._admit(scope, receive, sender, taken)
            except SandboxError as error:
                await _refuse(error, scope, receive, send)
                return
            if sender.caller is None:
                await self._app(scope, bounded, send)
            else:
                await _Exchange(self._app, scope, send).run(bounded, self._connections, sender.caller)

    async def _identify(self, scope: Scope) -> _Identified:
        """Who sends the request. Raises only what means that the caller cannot be looked up now."""
        connection = HTTPConnection(scope)
        address = connection.client.host if connection.client else "unknown"
        if token := exports_token(connection):
            try:
                session_id, _ = self._signer.read_exports(token)
            except SignatureRefused:
                return _Identified(address, is_known=False)
            return _Identified(f"session {session_id}", is_known=True)
        try:
            caller = await identify(connection, self._tokens)
        except SandboxError as error:
            if error.kind not in (Kind.UNAUTHENTICATED, Kind.FORBIDDEN):
                raise
            # A route that needs a caller answers with this error. Probes and the sign-in form need none.
            set_identity(scope, error)
            return _Identified(address, is_known=False)
        set_identity(scope, caller)
        # An admin acts for all users, so only the totals bound it.
        return _Identified(None if caller.is_admin else f"user {caller.user_id}", is_known=True, caller=caller)

    def _admit(self, scope: Scope, receive: Receive, sender: _Identified, taken: Taken) -> Receive:
        """Count the request; the channel from which its body may be read. Raises SandboxError to refuse it."""
        length = _declared_length(scope)
        if not sender.is_known:
            taken.take(self._unknown)
            small = length is not None and length <= UNKNOWN_BODY_BYTES
            return receive if small or scope["type"] == "websocket" else _without_body(receive)
        use = use_of(scope, self._settings)
        taken.take(self._activities[use.activity])
        if scope["type"] == "websocket":
            return receive
        if use.max_bytes is not None and length is not None and length > use.max_bytes:
            raise BodyTooLarge(use.max_bytes, use.setting)
        count = self._counter(use, length, taken)
        return _counted(receive, use, count)

    def _counter(self, use: Use, length: int | None, taken: Taken) -> Callable[[int], None]:
        """A function that is called with the number of bytes read so far, and counts them as bytes under way.

        A declared length is counted at once, a length that is not declared as the body arrives.
        """
        bound = self._bytes.get(use.body)
        if bound is None:
            return lambda _: None
        counted = length or 0
        if counted:
            # Where the route has a limit of its own, what is declared beyond the bound is for the route to refuse.
            counted = counted if use.max_bytes is not None else min(counted, bound.per_key)
            taken.take(bound, counted)

        def count(read: int) -> None:
            nonlocal counted
            while read > counted:
                taken.take(bound, _STEP)
                counted += _STEP

        return count


class _Exchange:
    """A request of a known caller: it ends when the caller's token ends."""

    def __init__(self, app: ASGIApp, scope: Scope, send: Send) -> None:
        self._app = app
        self._scope = scope
        self._send = send
        self._started = self._complete = self._is_event_stream = False

    async def run(self, receive: Receive, connections: OpenConnections, caller: Caller) -> None:
        try:
            async with connections.until_token_ends(caller):
                await self._app(self._scope, receive, self._forward)
        except TokenEnded:
            await self._end(receive)

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_event_stream = any(
                name == b"content-type" and value.startswith(b"text/event-stream") for name, value in message["headers"]
            )
        self._started = self._started or message["type"] in ("http.response.start", "websocket.accept")
        self._complete = message["type"] == "websocket.close" or (
            message["type"] == "http.response.body" and not message.get("more_body", False)
        )
        await self._send(message)

    async def _end(self, receive: Receive) -> None:
        if self._complete:
            return
        error = AccessEnded("The token of this request has been revoked or has expired.", hint="Use another token.")
        if not self._started:
            await _refuse(error, self._scope, receive, self._send)
        elif self._scope["type"] == "websocket":
            response = render(error)
            await refuse_websocket(WebSocket(self._scope, receive, self._send), response, accepted=True)
        elif self._is_event_stream:
            # Clients of event streams connect again, and get the refusal then.
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            raise error  # breaks the transfer off: its receiver must not take what has arrived for the whole


async def _refuse(error: SandboxError, scope: Scope, receive: Receive, send: Send) -> None:
    response = render(error)
    if scope["type"] == "websocket":
        await refuse_websocket(WebSocket(scope, receive, send), response, accepted=False)
    else:
        await response(scope, receive, send)


def _declared_length(scope: Scope) -> int | None:
    """The length of the body; None if it is not declared, which includes a body in chunks."""
    length: int | None = 0
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 16 else None
        if name == b"transfer-encoding":
            length = None
    return length


def _counted(receive: Receive, use: Use, count: Callable[[int], None]) -> Receive:
    """Count what is read. Raises BodyTooLarge, TooManyAtOnce and ServiceBusy while the body is read."""
    read = 0

    async def counted() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if use.max_bytes is not None and read > use.max_bytes:
            raise BodyTooLarge(use.max_bytes, use.setting)
        count(read)
        return message

    return counted


def _without_body(receive: Receive) -> Receive:
    """The channel of a request whose body is not read: it is empty, and later messages tell of the client's end."""
    first = True

    async def empty() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": b"", "more_body": False}
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return message

    return empty
