"""Who may see a preview: the signed link, the cookie it becomes, or a token of the API.

The cookie belongs to one preview host. `SameSite=Lax` where the preview is a page of its own, which every browser takes
over plain HTTP; in a frame of the console, which is another site, browsers drop a Lax cookie, so there it is
`SameSite=None; Secure; Partitioned`: sent below that console alone, and taken over plain HTTP on `*.localhost` because
browsers count that as secure.

Previews of different sessions are one *site* to a browser, so `SameSite` does not keep one sandbox's page from sending
requests with the cookie of another. `Sec-Fetch-Site` and `Origin` do: a cookie counts only for what its own session's
pages request, and for opening a page. The edge applies the part of this rule that it can decide alone
(`edge/preview_routes.py`) and sends everything else here.

Each port of a session is a host of its own with a cookie of its own, and a sign-in at one is enough for all. A page
that is opened at another port is sent to the host without a port, whose cookie vouches for the visitor, and comes back
with a link. What a page requests from another port by a script carries no cookie, and a CORS preflight never does: such
a request counts if it names a page of the session as its sender and comes from an IP address at which a browser has
signed in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

from starlette.types import Scope

from sandbox.domain.caller import SignedInBy
from sandbox.domain.hosts import PreviewHost, host_name, parse_preview_host
from sandbox.errors import Kind, SandboxError
from sandbox.preview.headers import (
    ADDRESS_HEADER,
    COOKIE_NAME,
    METHOD_HEADER,
    PUBLIC_NAMES,
    TOKEN_PREFIX,
    cookie_values,
    values,
)
from sandbox.preview.target import Grant, PreviewAuthenticator, PreviewGrants, PreviewSigner, PreviewTarget

LINK_PARAMETER = "_sbx"
_PARAMETER = LINK_PARAMETER.encode()
_COOKIE_VALUE = re.compile(rf"[0-9]{{1,5}}\.(?P<key>[A-Za-z0-9_-]{{22}})(?:{re.escape(PUBLIC_NAMES)})?", re.ASCII)
#: Every printable ASCII character stays as the browser sent it; other bytes have no place in a request line.
_SAFE = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that may go on."""

    grant: Grant
    #: The request has the link's parameter, valid or not: the address bar should lose it.
    has_link: bool = False
    #: The values of the cookies that the browser has for this grant.
    cookies: frozenset[str] = frozenset()
    #: The header that held our credential and is not the app's business.
    consumed: str = ""
    #: Whether the browser is to have a cookie for this host.
    needs_cookie: bool = True


async def browser_visit(
    scope: Scope, host: PreviewHost, domain: str, signer: PreviewSigner, grants: PreviewGrants
) -> Visit | None:
    """What the link or the cookie allows; None if neither is there and valid."""
    link = link_token(scope["query_string"])
    signed = _read_link(signer, link, host) if link is not None else None
    if signed is not None and (made := await grants.create(host.session_id, signed, _address(scope))):
        return Visit(made, has_link=True)
    if not _requested_by_own_page(scope, host, domain):
        return None
    cookies = [match for value in cookie_values(scope["headers"]) if (match := _COOKIE_VALUE.fullmatch(value))]
    for match in cookies:
        if grant := await grants.find(match["key"], host.session_id):
            own = frozenset(each[0] for each in cookies if each["key"] == match["key"])
            return Visit(grant, has_link=link is not None, cookies=own)
    return None


async def page_visit(scope: Scope, host: PreviewHost, domain: str, grants: PreviewGrants) -> Visit | None:
    """What is allowed to a page of the session that sends no cookie for this host; None if no such page sends it."""
    address = _address(scope)
    if address is None or not _sent_by_session(scope, host, domain):
        return None
    grant = await grants.of_address(host.session_id, address)
    return Visit(grant, needs_cookie=opens_page(scope)) if grant is not None else None


def opens_page(scope: Scope) -> bool:
    """Whether a browser opens a page with this request."""
    return values(scope["headers"], b"sec-fetch-mode") == ["navigate"] and method(scope) in ("GET", "HEAD")


def way_of_sign_in(scope: Scope, host: PreviewHost, domain: str) -> str | None:
    """Where a browser that opens a page at this port without a cookie is sent: to the host without a port, with the
    port as its link. None if it is at that host, or does not open a page."""
    if host.port is None or not opens_page(scope):
        return None
    return _at_host(scope, PreviewHost(host.session_id), domain, str(host.port))


def way_back(scope: Scope, host: PreviewHost, domain: str, visit: Visit, signer: PreviewSigner) -> str | None:
    """Where a visitor goes on who was sent here to be signed in for another port; None if that is not so."""
    port = re.fullmatch("[1-9][0-9]{0,4}", link_token(scope["query_string"]) or "", re.ASCII)
    if port is None or int(port[0]) > 65_535 or host.port is not None or not visit.cookies or not opens_page(scope):
        return None
    grant = visit.grant
    signed = signer.sign_preview(grant.session_id, grant.by)
    return _at_host(scope, PreviewHost(host.session_id, int(port[0])), domain, signed)


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
            return Visit(grant, consumed=name, needs_cookie=False) if grant is not None else None
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


def cookie_header(scope: Scope, value: str) -> tuple[bytes, bytes]:
    """The header that gives the browser the grant of this name for this host, until the browser is closed."""
    framed = values(scope["headers"], b"sec-fetch-dest") in (["iframe"], ["frame"])
    if framed and values(scope["headers"], b"sec-fetch-site") == ["cross-site"]:
        attributes = "SameSite=None; Secure; Partitioned"
    else:
        attributes = "SameSite=Lax; Secure" if scope["scheme"] in ("https", "wss") else "SameSite=Lax"
    return (b"set-cookie", f"{COOKIE_NAME}={value}; Path=/; HttpOnly; {attributes}".encode())


def method(scope: Scope) -> str:
    """The method of the visitor's request, and the protocol that it wants to change to if it does. The edge's question
    is always a GET."""
    return "".join(values(scope["headers"], METHOD_HEADER.encode())).strip()


def _read_link(signer: PreviewSigner, value: str, host: PreviewHost) -> SignedInBy | None:
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
    return _sent_by_session(scope, host, domain) or opens_page(scope)


def _sent_by_session(scope: Scope, host: PreviewHost, domain: str) -> bool:
    """Whether the request names a page of this session as its sender: by `Origin`, else by `Referer`."""
    headers = scope["headers"]
    if values(headers, b"sec-fetch-site") not in ([], ["same-site"], ["same-origin"]):
        return False
    senders = values(headers, b"origin") or values(headers, b"referer")
    return bool(senders) and all(_is_own_origin(sender, host, domain) for sender in senders)


def _is_own_origin(origin: str, host: PreviewHost, domain: str) -> bool:
    try:
        name = host_name(urlsplit(origin).netloc)
    except ValueError:
        return False
    asking = parse_preview_host(name, domain) if name else None
    return asking is not None and asking.session_id == host.session_id


def _address(scope: Scope) -> str | None:
    """The visitor's IP address, as the edge sees it."""
    return "".join(values(scope["headers"], ADDRESS_HEADER.encode())) or None


def _at_host(scope: Scope, host: PreviewHost, domain: str, link: str) -> str:
    """The URL of this request at another host of its session, with a link."""
    _, colon, port = values(scope["headers"], b"host")[0].partition(":")
    path, question, query = same_address(scope).decode("ascii").partition("?")
    query = f"{query}&" if question else ""
    return f"//{host.name(domain)}{colon}{port}{path}?{query}{LINK_PARAMETER}={link}"


def _credentials(scope: Scope) -> dict[str, str]:
    """The headers that may hold a token of ours, the likelier first."""
    found: dict[str, str] = {}
    if keys := values(scope["headers"], b"x-api-key"):
        found["x-api-key"] = keys[0]
    bearers = values(scope["headers"], b"authorization")
    if bearers and bearers[0].lower().startswith("bearer "):
        found["authorization"] = bearers[0]
    return dict(sorted(found.items(), key=lambda item: TOKEN_PREFIX not in item[1]))
