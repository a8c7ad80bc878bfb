"""Authorises requests for previews, by the signed link, the cookie it becomes, or a token of the API.

The cookie belongs to one preview host. `SameSite=Lax` where the preview is a page of its own, which every browser takes
over plain HTTP; in a frame of the console, which is another site, browsers drop a Lax cookie, so there it is
`SameSite=None; Secure; Partitioned`: sent below that console alone, and taken over plain HTTP on `*.localhost` because
browsers count that as secure.

Neighbouring previews are one *site* to a browser, so `SameSite` does not keep one sandbox's page from sending requests
with the cookie of another. `Sec-Fetch-Site` and `Origin` do: a cookie counts only for what its own session's pages ask,
and for opening a page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urlsplit
from uuid import UUID

from starlette.types import Scope

from sandbox.domain.hosts import PreviewHost, host_name, parse_preview_host
from sandbox.errors import Kind, SandboxError
from sandbox.preview.headers import COOKIE_NAME, TOKEN_PREFIX, cookie_values, values
from sandbox.preview.target import PreviewAuthenticator, PreviewSigner, PreviewTarget

LINK_PARAMETER = "_sbx"
_PARAMETER = LINK_PARAMETER.encode()


@dataclass(frozen=True, slots=True)
class Grant:
    """An authorised request."""

    #: The user for whom the link or cookie was signed. None for an API token.
    user_id: str | None = None
    #: Whether the URL contains the link's parameter, valid or not, so that a redirect should remove it.
    has_link: bool = False
    #: Whether the link authorised the request, so that it should be replaced by a cookie.
    needs_cookie: bool = False
    #: Headers with this service's credentials, which are not passed on to the app.
    consumed: frozenset[bytes] = frozenset()


def browser_grant(scope: Scope, host: PreviewHost, domain: str, signer: PreviewSigner) -> Grant | None:
    """What the link or the cookie allows; None if neither is there and good."""
    link = link_token(scope["query_string"])
    if link is not None and (user_id := _signed_for(signer.read_preview, link, host)):
        return Grant(user_id, has_link=True, needs_cookie=True)
    if not _asked_by_itself(scope, host, domain):
        return None
    for value in cookie_values(scope["headers"]):
        if user_id := _signed_for(signer.read_preview_cookie, value, host):
            return Grant(user_id, has_link=link is not None)
    return None


def carries_token(scope: Scope) -> bool:
    """Whether there is a token of the API to judge, so that the session must be looked up before it is refused."""
    return bool(_credentials(scope))


async def token_grant(scope: Scope, target: PreviewTarget, authenticator: PreviewAuthenticator) -> Grant | None:
    """What an `X-API-Key` or bearer token allows; None if it is not one of ours, or not of a caller that may see it."""
    for name, value in _credentials(scope).items():
        if await authenticator.may_view({name: value}, target):
            return Grant(consumed=frozenset({name.encode()}))
    return None


def link_token(query: bytes) -> str | None:
    """The link's token in a query string, if there is one."""
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        if name == _PARAMETER:
            return unquote_to_bytes(value).decode("latin-1")
    return None


def without_link(query: bytes) -> bytes:
    """The query string without the link's parameter, the rest byte for byte as it was."""
    return b"&".join(part for part in query.split(b"&") if part.partition(b"=")[0] != _PARAMETER)


def cookie_header(scope: Scope, value: str) -> tuple[bytes, bytes]:
    """The header that makes the link's token a cookie of this host, for as long as the browser runs."""
    framed = values(scope["headers"], b"sec-fetch-dest") in (["iframe"], ["frame"])
    if framed and values(scope["headers"], b"sec-fetch-site") == ["cross-site"]:
        attributes = "SameSite=None; Secure; Partitioned"
    else:
        attributes = "SameSite=Lax; Secure" if scope["scheme"] in ("https", "wss") else "SameSite=Lax"
    return (b"set-cookie", f"{COOKIE_NAME}={value}; Path=/; HttpOnly; {attributes}".encode())


def _signed_for(read: Callable[[str, UUID], str], value: str, host: PreviewHost) -> str | None:
    try:
        return read(value, host.session_id)
    except SandboxError as error:
        if error.kind is not Kind.UNAUTHENTICATED:
            raise
        return None


def _asked_by_itself(scope: Scope, host: PreviewHost, domain: str) -> bool:
    """Whether the browser says that a page of this very session asks, or that somebody opens a page."""
    headers = scope["headers"]
    origins = values(headers, b"origin")
    own = all(_is_own_origin(origin, host, domain) for origin in origins)
    site = values(headers, b"sec-fetch-site")
    if not site:
        return own
    if site in (["none"], ["same-origin"]):
        return True
    if origins and own:
        return True
    return values(headers, b"sec-fetch-mode") == ["navigate"] and scope.get("method") in ("GET", "HEAD")


def _is_own_origin(origin: str, host: PreviewHost, domain: str) -> bool:
    try:
        name = host_name(urlsplit(origin).netloc)
    except ValueError:
        return False
    asking = parse_preview_host(name, domain) if name else None
    return asking is not None and asking.session_id == host.session_id


def _credentials(scope: Scope) -> dict[str, str]:
    """The headers that may hold a token of ours, the likelier first."""
    found: dict[str, str] = {}
    if keys := values(scope["headers"], b"x-api-key"):
        found["x-api-key"] = keys[0]
    bearers = values(scope["headers"], b"authorization")
    if bearers and bearers[0].lower().startswith("bearer "):
        found["authorization"] = bearers[0]
    return dict(sorted(found.items(), key=lambda item: TOKEN_PREFIX not in item[1]))
