"""Which names of this service a request may name in `Host`.

The owner of a domain can make its names lead to this service's address, so that pages of that domain reach the service
as if it were their own. Requests for such names are refused. Addresses and names without a dot cannot be registered, so
they are always accepted.
"""

from __future__ import annotations

import re
import socket

from starlette.types import Scope

from sandbox.domain.hosts import host_name
from sandbox.errors import Kind, SandboxError
from sandbox.settings import Settings

_ADDRESS = re.compile(r"\[[0-9a-f:.%]+\](:[0-9]{1,5})?|[0-9.]+(:[0-9]{1,5})?", re.IGNORECASE)


class HostUnknown(SandboxError):
    """The request names a host that is not this service."""

    code = "host_unknown"
    kind = Kind.MISDIRECTED


class HostNames:
    """The names under which clients reach the service."""

    def __init__(self, settings: Settings) -> None:
        domain = settings.preview_domain.lower().strip(".")
        given = {name.strip().lower().strip(".") for name in settings.hosts.split(",")} - {""}
        self._names = given | {domain, settings.host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        self._domain = domain

    def check(self, scope: Scope) -> None:
        """Raise HostUnknown unless every `Host` of the request is a name of this service."""
        for key, value in scope["headers"]:
            if key == b"host" and not self._is_ours(value.decode("latin-1")):
                raise HostUnknown(
                    "This service does not have the name that the request's Host header names.",
                    hint="Use the address of the service, or add the name to SANDBOX_HOSTS.",
                )

    def _is_ours(self, authority: str) -> bool:
        if _ADDRESS.fullmatch(authority):
            return True
        name = host_name(authority)
        if name is None:
            return False
        if "." not in name or name.endswith(".localhost") or name in self._names:
            return True
        # `preview.example.com` suggests that the service itself is `example.com` or `console.example.com`.
        parent = self._domain.partition(".")[2]
        return "." in parent and (name == parent or name.endswith(f".{parent}"))
