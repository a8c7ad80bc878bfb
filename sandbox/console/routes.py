"""The web console: one page, its scripts and style, and signing in.

`/?token=TOKEN` and the login form turn a token into a signed, HttpOnly cookie. The page itself is a client of the API.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from sandbox.access.signing import CALLER_COOKIE, COOKIE_SECONDS, Signer
from sandbox.access.tokens import TokenService
from sandbox.errors import Kind, NotFound, SandboxError
from sandbox.settings import Settings

router = APIRouter(include_in_schema=False)

_STATIC = Path(__file__).parent / "static"
_LOGIN = string.Template((_STATIC / "login.html").read_text("utf-8"))
_PAGE = (_STATIC / "index.html").read_text("utf-8")
_MAX_FORM_BYTES = 4096


@dataclass(frozen=True, slots=True)
class _Asset:
    media_type: str
    body: bytes


_TYPES = {".js": "text/javascript", ".css": "text/css"}
_ASSETS = {
    file.name: _Asset(_TYPES[file.suffix], file.read_bytes()) for file in _STATIC.iterdir() if file.suffix in _TYPES
}


class FormTooLarge(SandboxError):
    """The body of the login form is longer than a token can be."""

    code = "body_too_large"
    kind = Kind.TOO_LARGE


class ConsoleServices(Protocol):
    """The part of `app.state.services` that the console uses."""

    @property
    def settings(self) -> Settings: ...
    @property
    def tokens(self) -> TokenService: ...
    @property
    def signer(self) -> Signer: ...


@router.get("/")
async def page(request: Request, token: str | None = None) -> Response:
    """The console for a browser that is signed in, else the login form. With `token`, signs in first."""
    if token is not None:
        return await _sign_in(request, token)
    cookie = request.cookies.get(CALLER_COOKIE)
    if cookie is None:
        return _login(request)
    try:
        await _services(request).tokens.authenticate_cookie(cookie)
    except SandboxError as error:
        if error.kind is not Kind.UNAUTHENTICATED:
            raise
        return _login(request, "You have been signed out. Sign in again.")
    return HTMLResponse(_PAGE, headers=_headers(request))


@router.post("/")
async def sign_in(request: Request) -> Response:
    """Sign in by the login form, which keeps the token out of the URL."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise FormTooLarge("the login form is longer than a token can be", hint="Send only the token.")
    fields = parse_qs(body.decode("latin-1"))
    return await _sign_in(request, fields.get("token", [""])[0].strip())


@router.post("/logout")
async def sign_out(request: Request) -> Response:
    """Sign out: remove the cookie."""
    response = RedirectResponse("/", 303, headers=_headers(request))
    response.delete_cookie(CALLER_COOKIE, path="/", httponly=True, samesite="lax")
    return response


@router.get("/console/{name}")
async def asset(name: str) -> Response:
    """The page's scripts and style."""
    found = _ASSETS.get(name)
    if found is None:
        raise NotFound("the console has no such file")
    headers = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
    return Response(found.body, media_type=found.media_type, headers=headers)


async def _sign_in(request: Request, token: str) -> Response:
    services = _services(request)
    try:
        caller = await services.tokens.authenticate(token)
    except SandboxError as error:
        if error.kind is not Kind.UNAUTHENTICATED:
            raise
        return _login(request, "This token is not known here. It may be mistyped, expired or revoked.")
    response = RedirectResponse("/", 303, headers=_headers(request))
    response.set_cookie(
        CALLER_COOKIE,
        services.signer.sign_cookie(caller),
        max_age=COOKIE_SECONDS,
        path="/",
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return response


def _login(request: Request, message: str = "") -> Response:
    return HTMLResponse(_LOGIN.substitute(message=escape(message)), 401, headers=_headers(request))


def _headers(request: Request) -> dict[str, str]:
    """Security headers: the page may load its own files only, and show previews in frames."""
    domain = _services(request).settings.preview_domain
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "data:",
        "frame-src": f"http://*.{domain}:* https://*.{domain}:*",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "cache-control": "no-store",
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }


def _services(request: Request) -> ConsoleServices:
    return cast(ConsoleServices, request.app.state.services)
