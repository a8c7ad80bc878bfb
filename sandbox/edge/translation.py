"""What an app is asked, and what is taken from its answers: headers between the visitor's addresses and the app's.

A browser knows each port of a session by a host name of its own. An app sees itself at `localhost:PORT`, and the other
ports of its session at `localhost:` and theirs, as in development: `Host`, `Origin` and `Referer` agree, which is what
frameworks check. `X-Forwarded-Host` and `-Port` say the same, because frameworks compare them with `Origin` or with a
list of hosts; `Forwarded` names what the visitor asked for. A project can choose the public names instead
(`preview = { host = "public" }`): then all of these headers carry them.

The handlers use variables of the request that the routes before have set: `port`, where the app listens; `main_port`,
the port that the host without one stands for; `names`, which is `.public` or empty.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sandbox.preview.headers import COOKIE_NAME, PUBLIC_NAMES

Json = dict[str, Any]

#: The addresses by which an app may name itself: its loopback, and the wildcard addresses that it listens on.
_LOOPBACK = r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\]):([0-9]{1,5})"
#: Set where there is nothing to replace: an empty text to search for would be found everywhere.
_NOTHING = "-"
#: What a client may not say of its own way here.
_CLAIMS = ("X-Real-Ip", "X-Forwarded-Prefix", "X-Forwarded-Server")


@dataclass(frozen=True, slots=True)
class Addresses:
    """How visitors reach previews."""

    domain: str
    scheme: str
    port: int

    @property
    def suffix(self) -> str:
        """What follows the first label of a preview host in a URL: the domain, and the port unless it is the usual."""
        usual = (self.scheme, self.port) in (("http", 80), ("https", 443))
        return f".{self.domain}" if usual else f".{self.domain}:{self.port}"

    @property
    def own(self) -> str:
        """The origin of the preview that was asked."""
        return self.scheme + "://{http.request.hostport}"

    @property
    def local(self) -> bool:
        """Whether browsers treat these names as secure over plain HTTP."""
        return self.domain == "localhost" or self.domain.endswith(".localhost")


def session_origin(domain: str) -> str:
    """A pattern for the origins of a session's previews. Groups: the port, and the end of the session's id."""
    return (
        r"https?://(?:([1-9][0-9]{0,4})-)?[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}([0-9a-f]{12})\."
        + re.escape(domain)
        + r"(?::[0-9]{1,5})?"
    )


def translation_routes(addresses: Addresses) -> list[Json]:
    """Routes that set the variables that `request_headers` and `response_headers` use."""
    origin = session_origin(addresses.domain)
    defaults = {
        "app_host": "localhost:{http.vars.port}",
        "app_port": "{http.vars.port}",
        "client": "{http.vars.client_ip}",
        **{
            f"{name}_{kind}": _NOTHING
            for name in ("origin", "referer")
            for kind in ("seen", "local", "session", "port")
        },
    }
    public = {"app_host": "{http.request.hostport}", "app_port": str(addresses.port)}
    translated = {
        "handler": "subroute",
        "routes": [
            *_translate("Origin", f"^({origin})$"),
            *_translate("Referer", f"^({origin})(?:[/?#]|$)"),
        ],
    }
    return [
        {"handle": [_vars(**defaults)]},
        {
            "match": [{"vars_regexp": {"{http.vars.client_ip}": {"pattern": ":"}}}],
            "handle": [_vars(client="[{http.vars.client_ip}]")],
        },
        {"match": [{"vars": {"names": [PUBLIC_NAMES]}}], "handle": [_vars(**public)]},
        {"match": [{"not": [{"vars": {"names": [PUBLIC_NAMES]}}]}], "handle": [translated]},
    ]


def _translate(header: str, pattern: str) -> list[Json]:
    """Replace an origin of the own session by the address at which the app knows it; others pass as they are."""
    name = header.lower()

    def group(number: int) -> str:
        return f"{{http.regexp.{name}.{number}}}"

    origin, port, session = (f"{name}_{part}" for part in ("origin", "port", "session"))
    seen, local = f"{name}_seen", f"{name}_local"
    found = {origin: group(1), port: group(2), session: group(3)}
    translated = {seen: f"{{http.vars.{origin}}}", local: f"http://localhost:{{http.vars.{port}}}"}
    return [
        {"match": [{"header_regexp": {header: {"name": name, "pattern": pattern}}}], "handle": [_vars(**found)]},
        {"match": [{"vars": {port: [""]}}], "handle": [_vars(**{port: "{http.vars.main_port}"})]},
        {"match": [{"vars": {session: ["{http.regexp.host.3}"]}}], "handle": [_vars(**translated)]},
    ]


def request_headers(addresses: Addresses) -> Json:
    """Caddy's operations on the headers of the request to the app."""

    def replace(name: str) -> list[Json]:
        return [{"search": f"{{http.vars.{name}_seen}}", "replace": f"{{http.vars.{name}_local}}"}]

    forwarded = f'for="{{http.vars.client}}";host="{{http.request.hostport}}";proto={addresses.scheme}'
    return {
        "set": {
            "Host": ["{http.vars.app_host}"],
            "Forwarded": [forwarded],
            "X-Forwarded-Host": ["{http.vars.app_host}"],
            "X-Forwarded-Port": ["{http.vars.app_port}"],
            "X-Forwarded-Proto": [addresses.scheme],
            "X-Request-Id": ["{http.request.uuid}"],
        },
        "delete": list(_CLAIMS),
        "replace": {"Origin": replace("origin"), "Referer": replace("referer")},
    }


def response_headers(addresses: Addresses) -> Json:
    """Caddy's operations on the headers of the app's answer."""
    return {
        "set": {"X-Request-Id": ["{http.request.uuid}"]},
        "replace": {
            "Location": _to_public(r"^", addresses),
            "Refresh": _to_public(r"(?i)url\s*=\s*[\"']?", addresses),
            "Link": _to_public("<", addresses),
            "Access-Control-Allow-Origin": [
                {"search": "{http.vars.origin_local}", "replace": "{http.vars.origin_seen}"},
            ],
            "Set-Cookie": _cookie(addresses),
        },
    }


def _to_public(before: str, addresses: Addresses) -> list[Json]:
    """Replace addresses of this session's apps by those of their previews, where the pattern `before` precedes them.

    A pattern cannot contain the port, so every such address becomes a mark with its port, and then what it stands for.
    """
    other = addresses.scheme + "://${1}-{http.regexp.host.2}" + addresses.suffix
    return [
        {"search_regexp": f"({before}){_LOOPBACK}", "replace": "${1}app-port:$2:"},
        {"search": "app-port:{http.vars.port}:", "replace": addresses.own},
        {"search_regexp": r"app-port:([0-9]{1,5}):", "replace": other},
    ]


def _cookie(addresses: Addresses) -> list[Json]:
    """Cookies are the host's alone: one for the whole domain would reach the previews of others.

    Over plain HTTP clients drop cookies with `Secure`, so it is taken away, and `SameSite=None`, which needs it,
    becomes `Lax`. Browsers treat names below `localhost` as secure; there `Secure` stays where a cookie is no use
    without it.
    """
    operations = [
        {"search_regexp": r"(?i);\s*domain=[^;]*", "replace": ""},
        {"search_regexp": rf"^\s*{COOKIE_NAME}\s*=", "replace": "app_preview="},
    ]
    if addresses.scheme == "https":
        return operations
    operations.append({"search_regexp": r"(?i);\s*secure\s*(;|$)", "replace": ";was-secure$1"})
    if addresses.local:
        operations += [
            {"search_regexp": r"(?i)^(\s*__(?:host|secure)-.*);was-secure(.*)$", "replace": "${1}; Secure$2"},
            {"search_regexp": r"(?i)^(.*;\s*samesite=none.*);was-secure(.*)$", "replace": "${1}; Secure$2"},
            {"search_regexp": r"(?i)^(.*);was-secure(.*;\s*samesite=none.*)$", "replace": "${1}; Secure$2"},
        ]
    else:
        operations.append({"search_regexp": r"(?i);\s*samesite=none", "replace": "; SameSite=Lax"})
    return [*operations, {"search": ";was-secure", "replace": ""}]


def _vars(**values: str) -> Json:
    return {"handler": "vars"} | values
