"""The preview proxy. It authorises a request, finds its session, and forwards it through the guest agent's tunnel.

A request never starts or changes a session. If the session is over, lost or not started, the response says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from starlette.types import Receive, Scope, Send

from sandbox.domain.hosts import PreviewHost, host_name, parse_preview_host
from sandbox.errors import GuestError, InvalidInput, SandboxError
from sandbox.preview import pages
from sandbox.preview.access import Grant, browser_grant, carries_token, cookie_header, token_grant
from sandbox.preview.call import Call
from sandbox.preview.headers import check_size, framing, handshake_headers, request_headers, values
from sandbox.preview.http import Upstream, forward, request_target
from sandbox.preview.lookup import Lookup
from sandbox.preview.pages import Answer
from sandbox.preview.target import PreviewAuthenticator, PreviewResolver, PreviewSigner, PreviewTarget
from sandbox.preview.tunnels import Channels
from sandbox.preview.websocket import HandshakeDenied, relay
from sandbox.telemetry import context


@dataclass(frozen=True, slots=True)
class PreviewLimits:
    """Limits of one session's preview. The duration of responses and WebSockets is not limited."""

    #: Requests and WebSockets open at once.
    connections: int = 128
    header_bytes: int = 65_536
    message_bytes: int = 16 * 1024 * 1024
    connect_timeout_seconds: float = 5.0
    handshake_timeout_seconds: float = 30.0
    #: Below the 5 s after which Node.js and uvicorn close an idle connection themselves.
    keepalive_seconds: float = 4.0
    resolve_seconds: float = 1.0
    touch_seconds: float = 5.0


class PreviewApp:
    """An ASGI application for preview hosts (`HostRouter` sends it no others). Not thread-safe."""

    def __init__(
        self,
        resolver: PreviewResolver,
        signer: PreviewSigner,
        domain: str,
        *,
        authenticator: PreviewAuthenticator,
        limits: PreviewLimits | None = None,
    ) -> None:
        self._signer = signer
        self._domain = domain.lower().strip(".")
        self._authenticator = authenticator
        self._limits = limits or PreviewLimits()
        self._lookup = Lookup(resolver, self._limits.resolve_seconds, self._limits.touch_seconds)
        self._channels = Channels(
            resolver,
            max_connections=self._limits.connections,
            connect_timeout_seconds=self._limits.connect_timeout_seconds,
            keepalive_seconds=self._limits.keepalive_seconds,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return
        call = Call(scope, receive, send, context.current().request_id or uuid4().hex)
        try:
            answer = await self._serve(call)
        except SandboxError as error:
            answer = pages.of_error(error)
        if answer is not None:
            await call.respond(answer.status, *answer.render(scope, call.request_id))

    @property
    def open_sessions(self) -> int:
        """The number of sessions with open connections, in use or idle."""
        return self._channels.open_sessions

    async def aclose(self) -> None:
        """Close all connections to apps."""
        await self._channels.aclose()
        await self._lookup.aclose()

    async def _serve(self, call: Call) -> Answer | None:
        """Forward the request, or return the response to send instead."""
        host = self._host(call.scope)
        admitted = await self._admit(call.scope, host) if host else None
        if host is None or admitted is None:
            return pages.not_found()
        target, grant = admitted
        if grant.user_id:
            context.set_user(grant.user_id)
        if grant.has_link and call.is_http and call.scope["method"] in ("GET", "HEAD"):
            await self._redirect(call, host, grant)
            return None
        if answer := pages.of_status(target):
            return answer
        port = host.port or target.preview_port
        return await self._pass_on(call, target, port, grant) if port else pages.nothing_served(target)

    async def _admit(self, scope: Scope, host: PreviewHost) -> tuple[PreviewTarget, Grant] | None:
        """Return the session and the authorisation of the request. None does not reveal which of the two is missing."""
        check_size(scope["headers"], self._limits.header_bytes)
        grant = browser_grant(scope, host, self._domain, self._signer)
        if grant is None and not carries_token(scope):
            return None
        target = await self._lookup.resolve(host.session_id)
        if target is not None and grant is None:
            grant = await token_grant(scope, target, self._authenticator)
        return (target, grant) if target and grant else None

    async def _pass_on(self, call: Call, target: PreviewTarget, port: int, grant: Grant) -> Answer | None:
        scope, request_id = call.scope, call.request_id
        try:
            async with self._channels.use(target.session_id) as channel:
                on_use = partial(self._lookup.touch, target.session_id)
                upstream = Upstream(channel, target.candidates(port), port, on_use)
                if call.is_http:
                    body = framing(scope["headers"])
                    headers = request_headers(scope, body, consumed=grant.consumed, request_id=request_id)
                    await forward(call, upstream, headers, body)
                else:
                    await call.receive()  # websocket.connect
                    await relay(
                        call,
                        upstream,
                        handshake_headers(scope, consumed=grant.consumed, request_id=request_id),
                        max_message_bytes=self._limits.message_bytes,
                        handshake_timeout_seconds=self._limits.handshake_timeout_seconds,
                    )
        except GuestError as error:
            # If the app does not answer, the session may have changed since it was looked up.
            self._lookup.forget(target.session_id)
            now = await self._lookup.resolve(target.session_id) or target
            return pages.of_status(now) or pages.port_silent(now, port, error)
        except HandshakeDenied as denied:
            await call.respond(denied.status, denied.headers, denied.body)
        return None

    def _host(self, scope: Scope) -> PreviewHost | None:
        names = values(scope["headers"], b"host")
        if len(names) != 1:
            raise InvalidInput("the request has more than one Host header", code="bad_host")
        name = host_name(names[0])
        return parse_preview_host(name, self._domain) if name else None

    async def _redirect(self, call: Call, host: PreviewHost, grant: Grant) -> None:
        """Redirect to the same URL without the link's token. If the token was valid, set the cookie."""
        location = request_target(call.scope)
        if location[1:2] in (b"/", b"\\"):  # "//name" would be another host
            location = b"/." + location
        headers = [(b"location", location), (b"content-length", b"0"), (b"x-request-id", call.request_id.encode())]
        headers += [(b"cache-control", b"no-store"), (b"referrer-policy", b"no-referrer")]
        if grant.needs_cookie and grant.user_id:
            value = self._signer.sign_preview_cookie(host.session_id, grant.user_id)
            headers.append(cookie_header(call.scope, value))
        await call.respond(302, headers, b"")
