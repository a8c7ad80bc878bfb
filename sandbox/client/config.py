"""The address of the service and the caller's token, from arguments and the environment."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from sandbox.client.errors import SandboxError

TOKEN_FILE = "admin-token"  # noqa: S105 - the name of the file, not what is in it


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """The service's URL, without a trailing slash, and the caller's token, if there is one."""

    base_url: str
    token: str | None = field(repr=False)
    preview_domain: str = "preview.localhost"
    #: The root certificate of a service on this machine that is its own authority (`SANDBOX_TLS=internal`).
    authority: Path | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers that authenticate the caller."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def websocket_url(self) -> str:
        """The service's URL for WebSockets."""
        return "ws" + self.base_url.removeprefix("http")

    def tls(self) -> ssl.SSLContext:
        """What is trusted: the authorities that this machine trusts, and the service's own. Blocks for milliseconds."""
        context = httpx.create_ssl_context()
        if self.authority is not None:
            context.load_verify_locations(self.authority)
        return context


def resolve(
    base_url: str | None = None, token: str | None = None, environ: Mapping[str, str] | None = None
) -> ClientConfig:
    """Return the configuration, from the arguments, the environment and the data folder, in this order.

    The URL is `SANDBOX_URL`, else port `SANDBOX_PORT` (8000) of 127.0.0.1, with TLS if `SANDBOX_TLS` is on. The token
    is `SANDBOX_TOKEN`, else `SANDBOX_ADMIN_TOKEN`, else the data folder's `admin-token`. The latter two belong to a
    service on this machine and are sent to loopback addresses only; such a service's own authority is trusted, too.
    """
    env = os.environ if environ is None else environ
    scheme = "http" if env.get("SANDBOX_TLS", "off") in ("", "off") else "https"
    own = f"{scheme}://127.0.0.1:{env.get('SANDBOX_PORT') or 8000}"
    url = (base_url or env.get("SANDBOX_URL") or own).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SandboxError(f"{url!r} is not an HTTP URL", hint="Example: http://127.0.0.1:8000", code="bad_url")
    used_token, local = token or env.get("SANDBOX_TOKEN"), _is_loopback(parts.hostname)
    if not used_token and local:
        used_token = env.get("SANDBOX_ADMIN_TOKEN") or _token_file(env)
    authority = authority_of(_home(env), parts.port or 443) if local and parts.scheme == "https" else None
    domain = env.get("SANDBOX_PREVIEW_DOMAIN") or "preview.localhost"
    return ClientConfig(url, used_token or None, domain, authority)


def authority_of(home: Path, port: int) -> Path | None:
    """The root certificate of the service with this data folder and port, if it has made one that may be read."""
    path = home / f"edge-{port}" / "storage" / "pki" / "authorities" / "local" / "root.crt"
    return path if os.access(path, os.R_OK) else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _home(env: Mapping[str, str]) -> Path:
    return Path(env.get("SANDBOX_HOME") or Path.home() / ".purple8-sandbox").expanduser()


def _token_file(env: Mapping[str, str]) -> str | None:
    try:
        return (_home(env) / TOKEN_FILE).read_text(encoding="utf-8").strip()
    except OSError:
        return None
