"""Who may see a preview: the signed link, the cookie it becomes, or a token of the API.

The cookie belongs to one preview host. `SameSite=Lax` where the preview is a page of its own, which every browser takes
over plain HTTP; in a frame of the console, which is another site, browsers drop a Lax cookie, so there it is
`SameSite=None; Secure; Partitioned`: sent below that console alone, and taken over plain HTTP on `*.localhost` because
browsers count that as secure.

Previews of different sessions are one *site* to a browser, so `SameSite` does not keep one sandbox's page from sending
requests with the cookie of another. `Sec-Fetch-Site` and `Origin` do: a cookie counts only for what its own session's
pages request, and for opening a page. The edge applies the part of this rule that it can decide alone
(`edge/configuration.py`) and sends everything else here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit
from uuid import UUID

from starlette.types import Scope

from sandbox.domain.hosts import PreviewHost, host_name, parse_preview_host
from sandbox.errors import Kind, SandboxError
from sandbox.preview.headers import COOKIE_NAME, METHOD_HEADER, TOKEN_PREFIX, cookie_values, values
from sandbox.preview.target import Grant, PreviewAuthenticator, PreviewGrants, PreviewSigner, PreviewTarget

LINK_PARAMETER = "_sbx"
_PARAMETER = LINK_PARAMETER.encode()
_COOKIE_VALUE = re.compile(r"(?P<port>[0-9]{1,5})\.(?P<key>[A-Za-z0-9_-]{22})", re.ASCII)
#: Every printable ASCII character stays as the browser sent it; other bytes have no place in a request line.
_SAFE = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that may go on."""

    grant: Grant
    #: The request has the link's parameter, valid or not: the address bar should lose it.
    has_link: bool = False
    #: The ports of the cookies that the browser has for this grant.
    cookie_ports: frozenset[int] = frozenset()
    #: The header that held our credential and is not the app's business.
    consumed: str = ""

    @property
    def is_browser(self) -> bool:
        return not self.consumed


async def browser_visit(
    scope: Scope, host: PreviewHost, domain: str, signer: PreviewSigner, grants: PreviewGrants
) -> Visit | None:
    """What the link or the cookie allows; None if neither is there and valid."""
    link = link_token(scope["query_string"])
    if link is not None and (signed := _read_link(signer, link, host)):
        user_id, token_id = signed
        if created := await grants.create(host.session_id, user_id, token_id):
            return Visit(created, has_link=True)
    if not _requested_by_own_page(scope, host, domain):
        return None
    cookies = [match for value in cookie_values(scope["headers"]) if (match := _COOKIE_VALUE.fullmatch(value))]
    for match in cookies:
        if grant := await grants.find(match["key"], host.session_id):
            ports = frozenset(int(each["port"]) for each in cookies if each["key"] == match["key"])
            return Visit(grant, has_link=link is not None, cookie_ports=ports)
    return None


def carries_token(scope: Scope) -> bool:
    """Whether there is a token of the API, so that the session must be looked up before the request is refused."""
    return bool(_credentials(scope))


async def token_visit(
    scope: Scope, target: PreviewTarget, authenticator: PreviewAuthenticator, grants: PreviewGrants
) -> Visit | None:
    """What an `X-API-Key` or bearer token allows; None if it is not one of ours, or not of a caller that may see it."""
    for name, value in _credentials(scope).items():
        caller = await authenticator.caller({name: value})
        if caller is not None and caller.may_see(target.user_id):
            grant = await grants.of_token(target.session_id, caller)
            return Visit(grant, consumed=name) if grant is not None else None
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


def same_address(scope: Scope) -> bytes:
    """Path and query as the client sent them, without the link's parameter, as the value of a `Location` header."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query = without_link(scope["query_string"])
    target = quote_from_bytes(path + b"?" + query if query else path, safe=_SAFE).encode()
    return b"/." + target if target[1:2] in (b"/", b"\\") else target  # "//name" would be another host


def cookie_header(scope: Scope, grant: Grant, port: int | None) -> tuple[bytes, bytes]:
    """The header that gives the browser the grant for this host, until the browser is closed. Port 0: not known yet."""
    framed = values(scope["headers"], b"sec-fetch-dest") in (["iframe"], ["frame"])
    if framed and values(scope["headers"], b"sec-fetch-site") == ["cross-site"]:
        attributes = "SameSite=None; Secure; Partitioned"
    else:
        attributes = "SameSite=Lax; Secure" if scope["scheme"] in ("https", "wss") else "SameSite=Lax"
    return (b"set-cookie", f"{COOKIE_NAME}={port or 0}.{grant.key}; Path=/; HttpOnly; {attributes}".encode())


def method(scope: Scope) -> str:
    """The method of the visitor's request, and the protocol that it wants to change to if it does. The edge's question
    is always a GET."""
    return "".join(values(scope["headers"], METHOD_HEADER.encode())).strip()


def _read_link(signer: PreviewSigner, value: str, host: PreviewHost) -> tuple[str, UUID | None] | None:
    try:
        return signer.read_preview(value, host.session_id)
    except SandboxError as error:
        if error.kind is not Kind.UNAUTHENTICATED:
            raise
        return None


def _requested_by_own_page(scope: Scope, host: PreviewHost, domain: str) -> bool:
    """Whether the browser says that a page of this very session sends the request, or that a page is being opened."""
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
    return values(headers, b"sec-fetch-mode") == ["navigate"] and method(scope) in ("GET", "HEAD")


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
