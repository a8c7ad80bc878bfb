"""The edge's routes for preview hosts: who passes, and what an app is shown and not shown of it.

A request takes one of two ways to the app. With a cookie of the right form, sent by the session's own page or to open a
page, it goes straight to the socket that the cookie names. Every other request, and every one whose socket does not
answer, is first asked about at the service (`preview/app.py`): it answers with a grant, or with what to show instead.

`translation.py` says what an app is asked and what is taken from its answers.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from sandbox.domain.hosts import ANSWER_HEADER
from sandbox.edge.access_log import log_handlers
from sandbox.edge.problems import problem
from sandbox.edge.translation import Addresses, request_headers, response_headers, translation_routes
from sandbox.preview.access import LINK_PARAMETER
from sandbox.preview.headers import (
    ADDRESS_HEADER,
    CONSUMED_HEADER,
    COOKIE_NAME,
    FAILURE_HEADER,
    GRANT_HEADER,
    MAIN_PORT_HEADER,
    METHOD_HEADER,
    NAMES_HEADER,
    PORT_HEADER,
    PUBLIC_NAMES,
    TOKEN_PREFIX,
)

Json = dict[str, Any]

#: Groups: the port, the session id, and the end of that, which names the folder of the session's grants.
_HOST = r"^(?:([1-9][0-9]{{0,4}})-)?([0-9a-f]{{8}}-?(?:[0-9a-f]{{4}}-?){{3}}([0-9a-f]{{12}}))\.{domain}$"
#: Groups: the file name of the grant, its port, and whether the app is asked by public names. Strict, because what
#: matches becomes part of a path.
_COOKIE = rf"(?:^|;)\s*{COOKIE_NAME}=(([1-9][0-9]{{0,4}})\.[A-Za-z0-9_-]{{22}}({re.escape(PUBLIC_NAMES)})?)\s*(?:;|$)"
_GRANT_SOCKET = "unix/grants/{http.regexp.host.3}/{http.vars.grant}.sock"
#: Headers in which visitors send cookies and tokens.
_CREDENTIALS = ("Cookie", "X-Api-Key", "Authorization")
#: Below the 5 seconds after which Node.js and uvicorn close an idle connection themselves.
_KEEPALIVE = {"idle_timeout": "4s", "max_idle_conns": 1024, "max_idle_conns_per_host": 32}
#: Most that the head of an app's answer may have.
_APP_HEADER_BYTES = 256 * 1024


def preview_routes(addresses: Addresses, *, service: str, stream_close_delay: str) -> list[Json]:
    """The routes for all names below the domain. `service` is the address of the service."""
    ask, domain = _ask_service(service, addresses.scheme), addresses.domain
    app = [
        _hide_link(),
        *_hide_credentials(),
        *translation_routes(addresses),
        {"handle": [*log_handlers(), _to_app(addresses, stream_close_delay)]},
    ]
    preview = {
        "handler": "subroute",
        "routes": [
            {"handle": [{"handler": "vars"} | {name: f"{{http.request.header.{name}}}" for name in _CREDENTIALS}]},
            *_fast_routes(addresses),
            {"group": "access", "handle": [ask]},
            *app,
        ],
        "errors": {
            "routes": [
                {"handle": [{"handler": "vars", "failure": "{http.error.message}"}, _restore_credentials()]},
                {"handle": [ask]},
                {"handle": [{"handler": "subroute", "routes": app, "errors": {"routes": [_hung_up()]}}]},
            ]
        },
    }
    host = {"name": "host", "pattern": _HOST.format(domain=re.escape(domain))}
    below = {"pattern": rf"(?i)\.{re.escape(domain)}\.?$"}
    return [
        {"match": [{"vars_regexp": {"{http.request.host}": host}}], "handle": [preview], "terminal": True},
        # Any other name below the domain is no preview, and never the service's own either.
        {"match": [{"vars_regexp": {"{http.request.host}": below}}], "handle": [ask], "terminal": True},
    ]


def _fast_routes(addresses: Addresses) -> list[Json]:
    """Requests that pass by their cookie alone. `preview/access.py` says why a cookie is not enough by itself."""
    cookie = {"header_regexp": {"Cookie": {"name": "cookie", "pattern": _COOKIE}}}
    own = {
        "vars": {"{http.regexp.host.1}": ["", "{http.vars.port}"]},
        "vars_regexp": {"grant": {"pattern": "."}},
        "not": [{"query": {LINK_PARAMETER: ["*"]}}],
    }
    sent_by: list[Json] = [
        {"header": {"Sec-Fetch-Site": None, "Origin": None}},
        {"header": {"Sec-Fetch-Site": ["none", "same-origin"]}},
        # Browsers send no Sec-Fetch-Site with WebSockets, nor to addresses that they do not treat as secure.
        {"header": {"Sec-Fetch-Site": None, "Origin": [addresses.own]}},
        {"header": {"Sec-Fetch-Mode": ["navigate"]}, "method": ["GET", "HEAD"]},
    ]
    port = "{http.regexp.cookie.2}"
    use = {"handler": "vars", "grant": "{http.regexp.cookie.1}", "port": port, "main_port": port}
    use["names"] = "{http.regexp.cookie.3}"
    # Matchers of one route are evaluated in any order, so what the cookie says is taken from it in a route before.
    return [
        {"match": [cookie], "handle": [use]},
        {"group": "access", "match": [own | sent for sent in sent_by], "handle": [{"handler": "vars", "passed": True}]},
    ]


def _ask_service(service: str, scheme: str) -> Json:
    """Ask the service about the request, without its body; with the grant of a 204 the next routes go on."""

    def answer(header: str) -> str:
        return "{http.reverse_proxy.header." + header.title() + "}"  # the placeholder's name is in canonical case

    return {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": service}],
        "transport": {"protocol": "http", "compression": False},
        "rewrite": {"method": "GET"},
        "headers": {
            "request": {
                "set": {
                    METHOD_HEADER: ["{http.request.method} {http.request.header.Upgrade}"],
                    FAILURE_HEADER: ["{http.vars.failure}"],
                    ADDRESS_HEADER: ["{http.vars.client_ip}"],
                    "X-Forwarded-Proto": [scheme],
                },
                "delete": ["Connection", "Upgrade", "Content-Length", "Transfer-Encoding", "Expect", "Sec-WebSocket-*"],
            }
        },
        "handle_response": [
            {
                "match": {"status_code": [204]},
                "routes": [
                    {
                        "handle": [
                            {
                                "handler": "vars",
                                "grant": answer(GRANT_HEADER),
                                "port": answer(PORT_HEADER),
                                "main_port": answer(MAIN_PORT_HEADER),
                                "names": answer(NAMES_HEADER),
                                "consumed": answer(CONSUMED_HEADER),
                            }
                        ]
                    }
                ],
            }
        ],
    }


def _hide_link() -> Json:
    rewrite = {"handler": "rewrite", "query": {"delete": [LINK_PARAMETER]}}
    return {"match": [{"query": {LINK_PARAMETER: ["*"]}}], "handle": [rewrite]}


def _hide_credentials() -> list[Json]:
    """Our cookie and our tokens are not the app's business."""
    token = rf"^\s*(?:$|{TOKEN_PREFIX})"
    bearer = rf"^\s*(?:$|[Bb][Ee][Aa][Rr][Ee][Rr]\s+{TOKEN_PREFIX})"
    strip_cookie = [
        {"search_regexp": rf"(^|;)\s*{COOKIE_NAME}=[^;]*", "replace": ""},
        {"search_regexp": r"^;\s*", "replace": ""},
    ]
    return [
        {"handle": [{"handler": "headers", "request": {"replace": {"Cookie": strip_cookie}}}]},
        _delete_header("Cookie", {"header_regexp": {"Cookie": {"pattern": r"^\s*$"}}}),
        _delete_header(
            "X-Api-Key",
            {"header_regexp": {"X-Api-Key": {"pattern": token}}},
            {"vars": {"consumed": ["x-api-key"]}},
        ),
        _delete_header(
            "Authorization",
            {"header_regexp": {"Authorization": {"pattern": bearer}}},
            {"vars": {"consumed": ["authorization"]}},
        ),
    ]


def _restore_credentials() -> Json:
    """The request as it came: the service is asked about it after an attempt without them. Absent ones become empty."""
    kept = {name: [f"{{http.vars.{name}}}"] for name in _CREDENTIALS}
    return {"handler": "headers", "request": {"set": kept}}


def _delete_header(name: str, *matchers: Json) -> Json:
    return {"match": list(matchers), "handle": [{"handler": "headers", "request": {"delete": [name]}}]}


def _to_app(addresses: Addresses, stream_close_delay: str) -> Json:
    request = request_headers(addresses)
    request["delete"] += [METHOD_HEADER, FAILURE_HEADER, ADDRESS_HEADER]
    return {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": _GRANT_SOCKET}],
        "stream_close_delay": stream_close_delay,
        "transport": {"protocol": "http", "dial_timeout": "5s", "compression": False, "keep_alive": _KEEPALIVE}
        | {"max_response_header_size": _APP_HEADER_BYTES},
        "headers": {"request": request, "response": response_headers(addresses)},
    }


def _hung_up() -> Json:
    """The second attempt failed too. The page of the service for it comes with the next request."""
    answer = problem(
        HTTPStatus.BAD_GATEWAY,
        "app_hung_up",
        "The app did not answer.",
        "Try again; it may have ended just now.",
        **{ANSWER_HEADER: "app_hung_up"},
    )
    return {"handle": [answer]}
