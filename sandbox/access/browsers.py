"""What browsers send: the cookie of a signed-in browser, and from which page a request comes. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Over TLS a cookie of this name can be set by this host only, not by a page of a host below or beside it.
_TLS_COOKIE: Final = "__Host-sandbox_caller"
_PLAIN_COOKIE: Final = "sandbox_caller"
#: Seconds for which a browser stays signed in, and for which a link to sign in is valid.
SIGN_IN_SECONDS: Final = 7 * 24 * 3600
LINK_SECONDS: Final = 3600


def cookie_name(scheme: str) -> str:
    """The name of the cookie of a signed-in browser, for requests of this scheme."""
    return _TLS_COOKIE if scheme in ("https", "wss") else _PLAIN_COOKIE


def sent_cookies(header: str, name: str) -> list[str]:
    """All values of the cookie in a `Cookie` header: a page of a sibling host can add one."""
    parts = (part.partition("=") for part in header.split(";"))
    return [value.strip() for key, _, value in parts if key.strip() == name and value.strip()]


def is_same_origin(headers: Mapping[str, str]) -> bool:
    """Whether the browser says that a page of this very origin sends the request.

    Not `same-site`: the hosts of previews, which run untrusted code, are of the same site as this one.
    """
    fetch_site = headers.get("sec-fetch-site")
    if fetch_site is not None:
        return fetch_site == "same-origin"
    # The scheme is not compared: behind a proxy that terminates TLS it is unknown here.
    host = headers.get("origin", "").partition("://")[2]
    return bool(host) and host.lower() == headers.get("host", "").lower()


def is_from_elsewhere(headers: Mapping[str, str]) -> bool:
    """Whether a page of another origin sends the request. Clients other than browsers do not say what sends it."""
    says = headers.get("sec-fetch-site"), headers.get("origin")
    return says not in ((None, None), ("none", None)) and not is_same_origin(headers)
