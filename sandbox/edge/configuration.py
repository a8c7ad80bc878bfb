"""The edge's configuration: the service's settings as Caddy's JSON. Pure: no I/O.

It never changes while the service runs. All paths in it are relative to the edge's folder, in which the edge runs.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from sandbox.edge.access_log import access_logs, server_logs, skip_handler
from sandbox.edge.cookies import surplus_cookies
from sandbox.edge.folder import ADMIN_SOCKET, LOCAL_SOCKET, SERVICE_SOCKET, STORAGE
from sandbox.edge.preview_routes import preview_routes
from sandbox.edge.problems import problem
from sandbox.edge.translation import Addresses
from sandbox.settings import Settings

Json = dict[str, Any]

#: Whole heads must arrive within this time.
HEADER_TIMEOUT = "10s"
#: More than apps take, because surplus cookies are removed here (`cookies.py`). It is not all that a browser can send:
#: with HTTP/2 a client makes the edge hold so much for each stream by sending little.
HEADER_BYTES = 256 * 1024
#: A body that is being sent, or an answer that is being read, must go on within these times. With HTTP/2 the first also
#: ends an upload that the app does not read for so long.
READ_IDLE_TIMEOUT = "120s"
WRITE_IDLE_TIMEOUT = "60s"
#: So much of a body is received before the service is asked, so that slow senders of short bodies cost it nothing.
REQUEST_BUFFER_BYTES = 64 * 1024
#: Longest between two requests on one connection.
IDLE_TIMEOUT = "120s"
#: A new configuration does not close the streams and WebSockets that are open.
STREAM_CLOSE_DELAY = "8760h"
#: Names of this machine that the edge's own authority certifies, besides the preview hosts.
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
SERVICE = f"unix/{SERVICE_SOCKET}"


def edge_configuration(settings: Settings) -> Json:
    """The whole configuration."""
    return {
        # An edge that others start finds its last configuration by itself (`caddy run --resume`).
        "admin": {"listen": f"unix/{ADMIN_SOCKET}|0600", "config": {"persist": settings.edge == "external"}},
        "storage": {"module": "file_system", "root": STORAGE},
        "logging": {"logs": {"default": {"level": "WARN", "writer": {"output": "stderr"}}} | access_logs()},
        "apps": {"http": {"grace_period": "3s", "servers": {"edge": _server(settings)}}} | _certificates(settings),
    }


def _certificates(settings: Settings) -> Json:
    """Where certificates come from: by SANDBOX_TLS."""
    if settings.tls == "off":
        return {}
    if files := settings.tls_files:
        certificate, key = map(str, files)
        return {"tls": {"certificates": {"load_files": [{"certificate": certificate, "key": key}]}}}
    domain = settings.preview_domain.lower().strip(".")
    if settings.tls == "acme":
        challenge = {"dns": {"provider": settings.dns_provider}}
        acme: Json = {"issuers": [{"module": "acme", "challenges": challenge}]}
        return {"tls": {"certificates": {"automate": [domain, f"*.{domain}"]}, "automation": {"policies": [acme]}}}
    # The authority's root certificate is in the storage folder: pki/authorities/local/root.crt
    policy: Json = {"issuers": [{"module": "internal"}]}
    names = [*_LOCAL_NAMES, f"*.{domain}"]
    return {
        "tls": {"certificates": {"automate": names}, "automation": {"policies": [policy]}},
        "pki": {"certificate_authorities": {"local": {"install_trust": False}}},
    }


def _trusted_proxies(settings: Settings) -> Json:
    ranges = [each.strip() for each in settings.trusted_proxies.split(",") if each.strip()]
    return {"trusted_proxies": {"source": "static", "ranges": ranges}, "trusted_proxies_strict": 1} if ranges else {}


def _server(settings: Settings) -> Json:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    secure = {} if settings.tls == "off" else {"tls_connection_policies": [{"default_sni": _default_name(settings)}]}
    return (
        secure
        | _trusted_proxies(settings)
        | {
            "listen": [f"{host}:{settings.port}", f"unix/{LOCAL_SOCKET}|0600"],
            "automatic_https": {"disable": True},
            "protocols": ["h1", "h2"],
            "read_header_timeout": HEADER_TIMEOUT,
            "max_header_bytes": HEADER_BYTES,
            "read_idle_timeout": READ_IDLE_TIMEOUT,
            "write_idle_timeout": WRITE_IDLE_TIMEOUT,
            "idle_timeout": IDLE_TIMEOUT,
            "logs": server_logs(),
            "routes": [
                {"handle": [skip_handler()]},
                _end_refused_bodies(),
                *surplus_cookies(),
                *_strict_transport(settings),
                *preview_routes(_addresses(settings), service=SERVICE, stream_close_delay=STREAM_CLOSE_DELAY),
                {"handle": [_to_service()]},
            ],
            "errors": {"routes": [_service_unavailable()]},
        }
    )


def _default_name(settings: Settings) -> str:
    """Whose certificate a client is shown that names no host."""
    return settings.preview_domain.lower().strip(".") if settings.tls == "acme" else _LOCAL_NAMES[0]


def _addresses(settings: Settings) -> Addresses:
    return Addresses(settings.preview_domain.lower().strip("."), settings.public_scheme, settings.preview_port)


def _strict_transport(settings: Settings) -> list[Json]:
    """With a certificate that browsers trust, they are to use no other scheme for this host from now on."""
    if settings.tls in ("off", "internal"):
        return []
    header = {"Strict-Transport-Security": ["max-age=31536000"]}
    return [{"handle": [{"handler": "headers", "response": {"set": header, "deferred": True}}]}]


def _end_refused_bodies() -> Json:
    """Close the connection with the answer if a request with a body is refused or breaks off: else its rest is waited
    for, without a deadline. HTTP/2 ends the one stream by itself."""
    close = {"set": {"Connection": ["close"]}, "deferred": True, "require": {"status_code": [4, 5]}}
    bodies: list[Json] = [{"header": {"Content-Length": ["*"]}}, {"header": {"Transfer-Encoding": ["*"]}}]
    return {
        "match": [{"protocol": "http/1.1"} | body for body in bodies],
        "handle": [{"handler": "headers", "response": close}],
    }


def _to_service() -> Json:
    return {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": SERVICE}],
        "transport": {"protocol": "http", "compression": False},
        "stream_close_delay": STREAM_CLOSE_DELAY,
        "request_buffers": REQUEST_BUFFER_BYTES,
    }


def _service_unavailable() -> Json:
    hint = "It is starting, or has ended. Try again; on its machine: sandbox doctor"
    answer = problem(
        HTTPStatus.SERVICE_UNAVAILABLE, "service_unavailable", "The service does not answer.", hint, Retry_After="1"
    )
    return {"match": [{"vars": {"{http.error.status_code}": ["502", "503", "504"]}}], "handle": [answer]}
