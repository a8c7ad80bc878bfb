"""Which headers pass through the proxy, and how. Raw bytes as ASGI and httpcore carry them; names are case-blind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.types import Scope

from sandbox.errors import InvalidInput, Kind, SandboxError

Headers = list[tuple[bytes, bytes]]

COOKIE_NAME = "__sbx_preview"
#: Every token this service makes starts with this, so it can be kept from the app whoever sent it.
TOKEN_PREFIX = "sbx_"  # noqa: S105
_COOKIE = COOKIE_NAME.encode()

#: RFC 9110 7.6.1, and the older names that servers still treat as belonging to one connection.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
#: What a client may not say of itself: this proxy says it. `expect` is answered by the server in front.
_OURS = frozenset(
    {
        b"expect",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-real-ip",
    }
)
_HANDSHAKE = frozenset(
    {
        b"host",
        b"origin",
        b"content-length",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
    }
)


class HeadersTooLarge(SandboxError):
    """The request's headers together are longer than is read."""

    code = "headers_too_large"
    kind = Kind.TOO_LARGE

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the request's headers are longer than {limit:,} bytes together",
            hint="Clear this host's cookies, or send fewer headers.",
        )


@dataclass(frozen=True, slots=True)
class Framing:
    """How a request says where its body ends."""

    has_body: bool
    #: The header to send on: `content-length` as it came, or `transfer-encoding: chunked`.
    header: tuple[bytes, bytes] | None


def values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    """All values of a header, in order."""
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]


def check_size(headers: Headers, limit: int) -> None:
    """Raise HeadersTooLarge if names and values together have more than `limit` bytes."""
    if sum(len(name) + len(value) for name, value in headers) > limit:
        raise HeadersTooLarge(limit)


def framing(headers: Headers) -> Framing:
    """Where the request's body ends. Raises InvalidInput where two servers could read that differently."""
    lengths = values(headers, b"content-length")
    codings = values(headers, b"transfer-encoding")
    if codings:
        if lengths:
            raise _ambiguous("both Content-Length and Transfer-Encoding")
        if len(codings) != 1 or codings[0].strip().lower() != "chunked":
            raise _ambiguous("a Transfer-Encoding other than chunked")
        return Framing(True, (b"transfer-encoding", b"chunked"))
    if not lengths:
        return Framing(False, None)
    if len(lengths) != 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
        raise _ambiguous("more than one Content-Length, or one that is not a number")
    return Framing(int(lengths[0]) > 0, (b"content-length", lengths[0].encode()))


def _ambiguous(what: str) -> InvalidInput:
    return InvalidInput(
        f"the request has {what}",
        code="bad_request_framing",
        hint="Send one Content-Length, or Transfer-Encoding: chunked alone.",
    )


def request_headers(scope: Scope, body: Framing, *, consumed: frozenset[bytes], request_id: str) -> Headers:
    """The headers of an HTTP request as the app is to see them; `consumed` names the credentials that were ours."""
    kept = _passed(scope["headers"], _HOP_BY_HOP | _OURS | consumed | {b"content-length", b"x-request-id"})
    if body.header:
        kept.append(body.header)
    return kept + _forwarded(scope, request_id)


def handshake_headers(scope: Scope, *, consumed: frozenset[bytes], request_id: str) -> Headers:
    """The headers of a WebSocket handshake, without those that the WebSocket client writes itself."""
    kept = _passed(scope["headers"], _HOP_BY_HOP | _OURS | _HANDSHAKE | consumed | {b"x-request-id"})
    return kept + _forwarded(scope, request_id)


def response_headers(headers: Headers, *, status: int, request_id: str) -> Headers:
    """The headers of the app's answer as the client is to see them."""
    drop = _HOP_BY_HOP | _named_by_connection(headers)
    if status in (204, 304):  # no body follows, so a length (allowed with 304) would leave the server in front waiting
        drop |= {b"content-length"}
    kept = [(k, v) for k, v in headers if k.lower() not in drop and not _sets_our_cookie(k, v)]
    if not values(kept, b"x-request-id"):
        kept.append((b"x-request-id", request_id.encode()))
    return kept


def accepted_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers of the app's answer to a WebSocket handshake that go on to the client, such as its cookies."""
    drop = _HOP_BY_HOP | _HANDSHAKE | {b"date", b"server"}
    return [(k.lower(), v) for k, v in headers if k.lower() not in drop and not _sets_our_cookie(k, v)]


def strip_cookie(value: bytes) -> bytes:
    """A `Cookie` header without our own cookie, the rest as it was."""
    pairs = [part for part in value.split(b";") if part.partition(b"=")[0].strip() != _COOKIE]
    return b";".join(pairs).strip()


def cookie_values(headers: Headers) -> list[str]:
    """Every value sent for our cookie. More than one: an app on a sibling host can set one for the whole domain."""
    parts = (part.partition(b"=") for k, v in headers if k.lower() == b"cookie" for part in v.split(b";"))
    return [value.strip().decode("latin-1") for name, _, value in parts if name.strip() == _COOKIE]


def _passed(headers: Headers, drop: frozenset[bytes]) -> Headers:
    drop = drop | _named_by_connection(headers)
    kept: Headers = []
    for name, value in headers:
        low = name.lower()
        if low in drop:
            continue
        if low == b"cookie":
            if rest := strip_cookie(value):
                kept.append((name, rest))
        elif not _is_our_token(low, value):
            kept.append((name, value))
    return kept


def _named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The headers a `Connection` header declares hop-by-hop. `host` is what requests are routed by and stays."""
    named = (part.strip().lower() for k, v in headers if k.lower() == b"connection" for part in v.split(b","))
    return frozenset(named) - {b"host", b"cookie", b"content-length"}


def _is_our_token(name: bytes, value: bytes) -> bool:
    prefix = TOKEN_PREFIX.encode()
    if name == b"x-api-key":
        return value.strip().startswith(prefix)
    if name == b"authorization":
        scheme, _, token = value.strip().partition(b" ")
        return scheme.lower() == b"bearer" and token.strip().startswith(prefix)
    return False


def _sets_our_cookie(name: bytes, value: bytes) -> bool:
    return name.lower() == b"set-cookie" and value.partition(b"=")[0].strip() == _COOKIE


def _forwarded(scope: Scope, request_id: str) -> Headers:
    client = scope.get("client")
    scheme = "https" if scope["scheme"] in ("https", "wss") else "http"
    host = values(scope["headers"], b"host")[0]
    return [
        (b"x-forwarded-for", (client[0] if client else "unknown").encode()),
        (b"x-forwarded-host", host.encode()),
        (b"x-forwarded-proto", scheme.encode()),
        (b"x-request-id", request_id.encode()),
    ]
