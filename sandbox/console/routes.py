"""The web console: its page, its files, and signing in.

`/?token=TOKEN` and the login form turn a token into a signed, HttpOnly cookie. The page is a client of the API; all of
its paths answer the same page, which then shows what belongs to the path.
"""

from __future__ import annotations

import secrets
import string
from html import escape
from typing import Protocol, cast
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from sandbox.access.signing import CALLER_COOKIE, COOKIE_SECONDS, Signer
from sandbox.access.tokens import TokenService
from sandbox.console.assets import assets, login_page, page
from sandbox.domain.caller import Caller
from sandbox.errors import Kind, NotFound, SandboxError
from sandbox.settings import Settings

router = APIRouter(include_in_schema=False)

_MAX_FORM_BYTES = 4096
_YEAR_SECONDS = 365 * 86_400


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
async def start_page(request: Request, token: str | None = None) -> Response:
    """The console for a browser that is signed in, else the login form. With `token`, signs in first."""
    if token is not None:
        return await _sign_in(request, token, "/")
    return await console_page(request)


@router.get("/new")
@router.get("/sessions/{session_id}")
@router.get("/sessions/{session_id}/{part}")
@router.get("/recovery")
@router.get("/platform/{part}")
@router.get("/platform/{part}/{item:path}")
async def console_page(request: Request) -> Response:
    """The console for a browser that is signed in, else the login form."""
    cookie = request.cookies.get(CALLER_COOKIE)
    if cookie is None:
        return _login(request, request.url.path)
    try:
        caller = await _services(request).tokens.authenticate_cookie(cookie)
    except SandboxError as error:
        if error.kind is not Kind.UNAUTHENTICATED:
            raise
        return _login(request, request.url.path, "You have been signed out. Sign in again.")
    nonce = secrets.token_urlsafe(16)
    return HTMLResponse(_filled_in(caller, nonce), headers=_headers(request, nonce))


@router.post("/")
async def sign_in(request: Request) -> Response:
    """Sign in by the login form, which keeps the token out of the URL."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise FormTooLarge("the login form is longer than a token can be", hint="Send only the token.")
    fields = parse_qs(body.decode("latin-1"))
    return await _sign_in(request, fields.get("token", [""])[0].strip(), fields.get("next", ["/"])[0])


@router.post("/logout")
async def sign_out(request: Request) -> Response:
    """Sign out: remove the cookie."""
    response = RedirectResponse("/", 303, headers=_headers(request))
    response.delete_cookie(CALLER_COOKIE, path="/", httponly=True, samesite="lax")
    return response


@router.get("/console/{name:path}")
async def asset(name: str, request: Request) -> Response:
    """A script or style of the console."""
    found = assets().get(name)
    if found is None:
        raise NotFound("the console has no such file")
    kept = f"public, max-age={_YEAR_SECONDS}, immutable" if found.is_immutable else "no-cache"
    headers = {"cache-control": kept, "x-content-type-options": "nosniff", "vary": "accept-encoding"}
    if found.gzip is not None and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.gzip, media_type=found.media_type, headers={**headers, "content-encoding": "gzip"})
    return Response(found.body, media_type=found.media_type, headers=headers)


async def _sign_in(request: Request, token: str, following: str) -> Response:
    services = _services(request)
    try:
        caller = await services.tokens.authenticate(token)
    except SandboxError as error:
        if error.kind is not Kind.UNAUTHENTICATED:
            raise
        return _login(request, following, "This token is not known here. It may be mistyped, expired or revoked.")
    response = RedirectResponse(_own_path(following), 303, headers=_headers(request))
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


def _own_path(following: str) -> str:
    """The path to open after signing in, if it is one of this service; else the start page."""
    is_own = following.startswith("/") and not following.startswith(("//", "/\\")) and following.isprintable()
    return following if is_own else "/"


def _login(request: Request, following: str, message: str = "") -> Response:
    filled = string.Template(login_page()).substitute(message=escape(message), next=escape(_own_path(following)))
    return HTMLResponse(filled, 401, headers=_headers(request))


def _filled_in(caller: Caller, nonce: str) -> str:
    """The page with the caller, and with the nonce that the policy in its headers allows styles to have."""
    values = {"__USER__": caller.user_id, "__ROLE__": caller.role.value, "__NONCE__": nonce}
    filled = page()
    for name, value in values.items():
        filled = filled.replace(name, escape(value))
    return filled


def _headers(request: Request, style_nonce: str | None = None) -> dict[str, str]:
    """Security headers: the page may load its own files only, and show previews in frames.

    Libraries of the console add styles while it runs (`<style>` elements), which need the nonce of this response.
    """
    domain = _services(request).settings.preview_domain
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": f"'self' 'nonce-{style_nonce}'" if style_nonce else "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "font-src": "'self'",
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
