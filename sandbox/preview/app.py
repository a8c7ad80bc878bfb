"""Access to previews. The edge asks here about each request that it cannot decide alone; the request's body and the
app's answer never pass through this process.

The question is a GET for the visitor's own URL with the visitor's headers. The answer is 204 with the grant by which
the edge then connects to the app, or what the visitor is to see instead: a page, a problem, a redirect with a cookie.
Nothing here starts, recovers or changes a session.
"""

from __future__ import annotations

import asyncio
from uuid import uuid4

from starlette.types import Receive, Scope, Send

from sandbox.domain.hosts import PreviewHost, host_name, parse_preview_host
from sandbox.errors import GuestError, InvalidInput, SandboxError
from sandbox.preview import access, pages
from sandbox.preview.access import Visit
from sandbox.preview.headers import (
    CONSUMED_HEADER,
    FAILURE_HEADER,
    GRANT_HEADER,
    MAIN_PORT_HEADER,
    METHOD_HEADER,
    NAMES_HEADER,
    PORT_HEADER,
    PUBLIC_NAMES,
    Headers,
    values,
)
from sandbox.preview.lookup import Lookup
from sandbox.preview.pages import Answer
from sandbox.preview.target import (
    PreviewAuthenticator,
    PreviewGrants,
    PreviewResolver,
    PreviewSigner,
    PreviewTarget,
)
from sandbox.telemetry import context


class PreviewApp:
    """An ASGI application for preview hosts (`HostRouter` sends it nothing else). Used from one event loop."""

    def __init__(
        self,
        resolver: PreviewResolver,
        signer: PreviewSigner,
        domain: str,
        *,
        authenticator: PreviewAuthenticator,
        grants: PreviewGrants | None,
        by_address: bool,
        remember_seconds: float = 1.0,
        connect_seconds: float = 5.0,
    ) -> None:
        """Args:
        grants: None if there is no edge, and so there are no previews.
        by_address: Whether the IP address of a sign-in counts for requests between the ports of a session, which
            carry no cookie (`access.page_visit`).
        remember_seconds: A session is read at most once in this time.
        connect_seconds: The longest that a guest agent may take to answer.
        """
        self._resolver = resolver
        self._signer = signer
        self._domain = domain.lower().strip(".")
        self._authenticator = authenticator
        self._grants = grants
        self._by_address = by_address
        self._lookup = Lookup(resolver, remember_seconds)
        self._connect_seconds = connect_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - it reads no body
        if scope["type"] == "websocket":  # does not come from the edge, which asks by GET
            await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return
        request_id = context.current().request_id or uuid4().hex
        try:
            answer = await self._decide(scope)
        except SandboxError as error:
            answer = pages.of_error(error)
        if isinstance(answer, Answer):
            headers, body = answer.render(scope, request_id)
            await _respond(send, answer.status, headers, body)
        else:
            status, headers = answer
            await _respond(send, status, [*headers, (b"x-request-id", request_id.encode())])

    async def aclose(self) -> None:
        await self._lookup.aclose()

    async def _decide(self, scope: Scope) -> Answer | tuple[int, Headers]:
        """The answer: a page, or a status and headers."""
        if self._grants is None or not values(scope["headers"], METHOD_HEADER.encode()):
            return pages.no_edge()
        host = self._host(scope)
        if host and (address := self._usual_address(scope, host)):
            return 308, [(b"location", address), (b"content-length", b"0")]
        admitted = await self._admit(scope, host, self._grants) if host else None
        if host is None:
            return pages.not_found()
        if admitted is None:
            elsewhere = access.way_of_sign_in(scope, host, self._domain)
            return pages.not_found() if elsewhere is None else _see(elsewhere)
        if elsewhere := access.way_back(scope, host, self._domain, admitted[1], self._signer):
            return _see(elsewhere)
        return await self._show(scope, host, *admitted, self._grants)

    async def _show(
        self, scope: Scope, host: PreviewHost, target: PreviewTarget, visit: Visit, grants: PreviewGrants
    ) -> Answer | tuple[int, Headers]:
        """The answer to a visitor who may see the session."""
        context.set_user(visit.grant.by.user_id)
        port = host.port or target.preview_port
        reads = access.method(scope) in ("GET", "HEAD")
        if visit.has_link and reads:
            return _redirect(scope, visit, visit.grant.name(port or 0, public_names=target.public_names))
        answer = pages.of_status(target)
        if answer is None and port is not None:
            answer = await self._connect(scope, target, port, visit, grants)
        if answer is not None or port is None:
            return answer or pages.nothing_served(target)
        name = visit.grant.name(port, public_names=target.public_names)
        if visit.needs_cookie and name not in visit.cookies and reads:
            return _redirect(scope, visit, name)
        return 204, [
            (GRANT_HEADER.encode(), name.encode()),
            (PORT_HEADER.encode(), str(port).encode()),
            (MAIN_PORT_HEADER.encode(), str(target.preview_port or port).encode()),
            (NAMES_HEADER.encode(), PUBLIC_NAMES.encode() if target.public_names else b""),
            (CONSUMED_HEADER.encode(), visit.consumed.encode()),
        ]

    async def _admit(
        self, scope: Scope, host: PreviewHost, grants: PreviewGrants
    ) -> tuple[PreviewTarget, Visit] | None:
        """The session and what lets this request see it. None does not say which of the two is lacking."""
        visit = await access.browser_visit(scope, host, self._domain, self._signer, grants)
        if visit is None and self._by_address and (host.port is None or not access.opens_page(scope)):
            visit = await access.page_visit(scope, host, self._domain, grants)
        if visit is None and not access.carries_token(scope):
            return None
        target = await self._lookup.resolve(host.session_id)
        if target is not None and visit is None:
            visit = await access.token_visit(scope, target, self._authenticator, grants)
        return (target, visit) if target and visit else None

    async def _connect(
        self, scope: Scope, target: PreviewTarget, port: int, visit: Visit, grants: PreviewGrants
    ) -> Answer | None:
        """Make the edge able to reach the app; what to show if it cannot."""
        failure = "".join(values(scope["headers"], FAILURE_HEADER.encode()))
        # With this the edge could not even connect: the socket is to be made again, and the request not yet sent.
        unsent = failure.startswith("dial ")
        try:
            async with asyncio.timeout(self._connect_seconds):
                if failure and not unsent:
                    await self._check_listening(target, port)
                    return pages.app_hung_up(target, port)
                await grants.connect(visit.grant, port, target, renew=unsent)
        except TimeoutError:
            late = f"the container gave no connection to port {port} within {self._connect_seconds:g} s"
            return await self._silent(target, port, GuestError(late, code="agent_unreachable"))
        except GuestError as error:
            return await self._silent(target, port, error)
        return None

    async def _check_listening(self, target: PreviewTarget, port: int) -> None:
        """Raise GuestError unless something listens on the port in one of the roles."""
        failure = GuestError(f"nothing listens on port {port}", code="port_not_open")
        for role in target.candidates(port):
            try:
                (await self._resolver.guest(target.session_id, role).tunnel(port)).close()
            except GuestError as error:
                failure = error
            else:
                return
        raise failure

    async def _silent(self, target: PreviewTarget, port: int, error: GuestError) -> Answer:
        # Silence may mean that the session has changed since it was looked up.
        self._lookup.forget(target.session_id)
        now = await self._lookup.resolve(target.session_id) or target
        return pages.of_status(now) or pages.port_silent(now, port, error)

    def _usual_address(self, scope: Scope, host: PreviewHost) -> bytes | None:
        """Where the request belongs if it spells the host in capitals or with a final dot, which the edge does not
        know; None if it does not."""
        name, colon, port = values(scope["headers"], b"host")[0].partition(":")
        if name == name.lower().removesuffix("."):
            return None
        return f"//{host.name(self._domain)}{colon}{port}".encode() + access.same_address(scope)

    def _host(self, scope: Scope) -> PreviewHost | None:
        names = values(scope["headers"], b"host")
        if len(names) != 1:
            raise InvalidInput("the request has more than one Host header", code="bad_host")
        name = host_name(names[0])
        return parse_preview_host(name, self._domain) if name else None


def _see(address: str) -> tuple[int, Headers]:
    headers = [(b"location", address.encode()), (b"content-length", b"0")]
    return 302, [*headers, (b"cache-control", b"no-store"), (b"referrer-policy", b"no-referrer")]


def _redirect(scope: Scope, visit: Visit, cookie: str) -> tuple[int, Headers]:
    """To the same address without the link's token, with the cookie for the port as it is now."""
    headers = [(b"location", access.same_address(scope)), (b"content-length", b"0")]
    headers += [(b"cache-control", b"no-store"), (b"referrer-policy", b"no-referrer")]
    if cookie not in visit.cookies:
        headers.append(access.cookie_header(scope, cookie))
    return 302, headers


async def _respond(send: Send, status: int, headers: Headers, body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
