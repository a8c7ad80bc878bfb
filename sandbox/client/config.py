"""Where the service is and who is calling, from arguments and the environment."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from sandbox.client.errors import SandboxError

TOKEN_FILE = "admin-token"  # noqa: S105 - the name of the file, not what is in it


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """A service's address, without a trailing slash, and the caller's token, if there is one."""

    base_url: str
    token: str | None = field(repr=False)
    preview_domain: str = "preview.localhost"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def websocket_url(self) -> str:
        return "ws" + self.base_url.removeprefix("http")


def resolve(
    base_url: str | None = None, token: str | None = None, environ: Mapping[str, str] | None = None
) -> ClientConfig:
    """The configuration: arguments first, then the environment, then what a service on this machine left.

    The address is `SANDBOX_URL`, else 127.0.0.1 at `SANDBOX_PORT` (8000). The token is `SANDBOX_TOKEN`, else
    `SANDBOX_ADMIN_TOKEN`, else the data folder's `admin-token`; the latter two are sent to a loopback address only, as
    they are this machine's.
    """
    env = os.environ if environ is None else environ
    url = (base_url or env.get("SANDBOX_URL") or f"http://127.0.0.1:{env.get('SANDBOX_PORT') or 8000}").rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SandboxError(f"{url!r} is not an http address", hint="For example http://127.0.0.1:8000", code="bad_url")
    found = token or env.get("SANDBOX_TOKEN")
    if not found and _is_loopback(parts.hostname):
        found = env.get("SANDBOX_ADMIN_TOKEN") or _token_file(env)
    return ClientConfig(url, found or None, env.get("SANDBOX_PREVIEW_DOMAIN") or "preview.localhost")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token_file(env: Mapping[str, str]) -> str | None:
    home = Path(env.get("SANDBOX_HOME") or Path.home() / ".purple8-sandbox").expanduser()
    try:
        return (home / TOKEN_FILE).read_text(encoding="utf-8").strip()
    except OSError:
        return None
