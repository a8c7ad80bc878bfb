"""The web console: its page, its files, and signing in.

A link that works once and the login form turn a token into an HttpOnly cookie. The page is a client of the API; all of
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

from sandbox.access.browsers import SIGN_IN_SECONDS, cookie_name, is_from_elsewhere, sent_cookies
from sandbox.access.identity import set_identity
from sandbox.access.tokens import TokenService, TokenUnknown
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


class CrossOrigin(SandboxError):
    """A page of another origin wants to sign this browser in or out."""

    code = "cross_origin"
    kind = Kind.FORBIDDEN


class ConsoleServices(Protocol):
    """The part of `app.state.services` that the console uses."""

    @property
    def settings(self) -> Settings: ...
    @property
    def tokens(self) -> TokenService: ...


@router.get("/")
async def start_page(request: Request, token: str | None = None) -> Response:
    """The console. With `token`, sign in first: the way in of programs that open a browser. Links for people work once
    (`/sign-in`), because a link with a token stays valid in the history of the browser."""
    if token is None:
        return await console_page(request)
    if is_from_elsewhere(request.headers):
        return _login(request, "/", "Another page has led you here. To use the link, paste it into the address bar.")
    return await _sign_in(request, token, "/")


@router.get("/new")
@router.get("/sessions/{session_id}")
@router.get("/sessions/{session_id}/{part}")
@router.get("/recovery")
@router.get("/platform/{part}")
@router.get("/platform/{part}/{item:path}")
async def console_page(request: Request) -> Response:
    """The console for a browser that is signed in, else the login form."""
    cookies = _cookies(request)
    if not cookies:
        return _login(request, request.url.path)
    try:
        caller = await _services(request).tokens.authenticate_cookies(cookies)
    except SandboxError as error:
        if error.kind is not Kind.UNAUTHENTICATED:
            raise
        return _login(request, request.url.path, "You have been signed out. Sign in again.")
    nonce = secrets.token_urlsafe(16)
    return HTMLResponse(_filled_in(caller, nonce), headers=_headers(request, nonce))


@router.get("/sign-in")
async def sign_in_by_link(request: Request, code: str = "") -> Response:
    """Sign in by a link, which works once. Not if a page of another origin leads here: it could sign a browser in as
    another user, who then sees what is done there."""
    if is_from_elsewhere(request.headers):
        return _login(request, "/", "Another page has led you here. To use the link, paste it into the address bar.")
    try:
        caller = await _services(request).tokens.use_code(code)
    except TokenUnknown as error:
        return _login(request, "/", f"{error.message} {error.hint}")
    return await _signed_in(request, caller, "/")


@router.post("/")
async def sign_in(request: Request) -> Response:
    """Sign in by the login form, which keeps the token out of the URL."""
    _refuse_other_origins(request)
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise FormTooLarge("the login form is longer than a token can be", hint="Send only the token.")
    fields = parse_qs(body.decode("latin-1"))
    return await _sign_in(request, fields.get("token", [""])[0].strip(), fields.get("next", ["/"])[0])


@router.post("/logout")
async def sign_out(request: Request) -> Response:
    """Sign out: end the sign-in and remove the cookie."""
    _refuse_other_origins(request)
    for cookie in _cookies(request):
        await _services(request).tokens.sign_out(cookie)
    response = RedirectResponse("/", 303, headers=_headers(request))
    scheme = request.url.scheme
    response.delete_cookie(cookie_name(scheme), path="/", httponly=True, samesite="lax", secure=scheme == "https")
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
    try:
        caller = await _services(request).tokens.authenticate(token)
    except SandboxError as error:
        if error.kind is not Kind.UNAUTHENTICATED:
            raise
        return _login(request, following, "This token is not known here. It may be mistyped, expired or revoked.")
    return await _signed_in(request, caller, following)


async def _signed_in(request: Request, caller: Caller, following: str) -> Response:
    """Lead to a page of the console with the cookie of a new sign-in; an earlier sign-in of the browser ends."""
    tokens = _services(request).tokens
    set_identity(request.scope, caller)
    for cookie in _cookies(request):
        await tokens.sign_out(cookie)
    response = RedirectResponse(_own_path(following), 303, headers=_headers(request))
    scheme = request.url.scheme
    response.set_cookie(
        cookie_name(scheme),
        await tokens.sign_in(caller),
        max_age=SIGN_IN_SECONDS,
        path="/",
        httponly=True,
        samesite="lax",
        secure=scheme == "https",
    )
    return response


def _cookies(request: Request) -> list[str]:
    return sent_cookies(request.headers.get("cookie", ""), cookie_name(request.url.scheme))


def _refuse_other_origins(request: Request) -> None:
    if is_from_elsewhere(request.headers):
        raise CrossOrigin(
            "A page of another origin may neither sign a browser in nor out.", hint="Do it on the console's own page."
        )


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
