"""Authentication, as dependencies of the routes.

Callers send a token by `Authorization: Bearer` or `X-API-Key`; a browser sends a cookie. A browser adds the cookie to
requests of any page, previews included, so a cookie is accepted for unsafe methods and WebSockets only if the request
comes from a page of the same origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from sandbox.access.browsers import cookie_name, is_same_origin, sent_cookies
from sandbox.access.identity import identity_of
from sandbox.access.signing import EXPORTS_TOKEN_PREFIX
from sandbox.access.tokens import SignInMissing, TokenMissing, TokenService
from sandbox.domain.caller import Caller
from sandbox.errors import Kind, SandboxError
from sandbox.telemetry import context

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class AdminRequired(SandboxError):
    """The caller is authenticated but is not an admin."""

    code = "admin_required"
    kind = Kind.FORBIDDEN


class CrossOrigin(SandboxError):
    """A page of another origin sent an unsafe request with this browser's cookie."""

    code = "cross_origin"
    kind = Kind.FORBIDDEN


class Authenticator(Protocol):
    """Knows callers by their credentials. `TokenService` implements this protocol."""

    async def authenticate(self, token: str) -> Caller: ...

    async def authenticate_cookies(self, cookies: Sequence[str]) -> Caller: ...


class AuthServices(Protocol):
    """The part of `app.state.services` that authentication needs."""

    @property
    def tokens(self) -> TokenService: ...


def services(connection: HTTPConnection) -> AuthServices:
    """The services of the application, as far as authentication needs them."""
    return cast(AuthServices, connection.app.state.services)


async def identify(connection: HTTPConnection, tokens: Authenticator) -> Caller:
    """The caller of a request or WebSocket. Raises `token_missing`, `token_unknown`, `cross_origin`."""
    token = _header_token(connection)
    return await tokens.authenticate(token) if token is not None else await _by_cookie(connection, tokens)


async def require_caller(connection: HTTPConnection) -> Caller:
    """The authenticated caller of a request or WebSocket. Raises like `identify`."""
    identity = identity_of(connection.scope)
    if isinstance(identity, SandboxError):
        raise identity
    caller = identity or await identify(connection, services(connection).tokens)
    context.set_user(caller.user_id)
    return caller


async def require_admin(caller: Annotated[Caller, Depends(require_caller)]) -> Caller:
    """The caller, if it is an admin. Raises `admin_required`."""
    if not caller.is_admin:
        raise AdminRequired("Only an admin may do this.", hint="Call with an admin's token.")
    return caller


CurrentCaller = Annotated[Caller, Depends(require_caller)]
CurrentAdmin = Annotated[Caller, Depends(require_admin)]


def exports_token(connection: HTTPConnection) -> str | None:
    """The telemetry token of a session, if the request has one. Only the OTLP routes accept it."""
    token = _header_token(connection)
    return token if token is not None and token.startswith(EXPORTS_TOKEN_PREFIX) else None


def _header_token(connection: HTTPConnection) -> str | None:
    scheme, _, credentials = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    return connection.headers.get("x-api-key") or None


async def _by_cookie(connection: HTTPConnection, tokens: Authenticator) -> Caller:
    cookies = sent_cookies(connection.headers.get("cookie", ""), cookie_name(connection.url.scheme))
    if not cookies:
        raise TokenMissing(
            "This needs a token and none was sent.", hint="Send `Authorization: Bearer TOKEN` or `X-API-Key: TOKEN`."
        )
    unsafe = connection.scope["type"] == "websocket" or connection.scope["method"] not in _SAFE_METHODS
    if unsafe and not is_same_origin(connection.headers):
        raise CrossOrigin(
            "A page of another origin may not act with this browser's cookie.",
            hint="Act from the console itself, or send a token.",
        )
    try:
        return await tokens.authenticate_cookies(cookies)
    except SignInMissing as error:
        raise TokenMissing(error.message, hint=error.hint) from error
