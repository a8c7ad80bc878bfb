"""Names of preview hosts: `{session_id}.{domain}` and `{port}-{session_id}.{domain}`. A `Host` header is hostile."""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

#: A UUID as text (36 characters) or as 32 hex digits, with an optional port before it: at most 42, so one DNS label.
_LABEL = re.compile(
    r"(?:(?P<port>[1-9][0-9]{0,4})-)?(?P<id>[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.ASCII
)
#: What may stand in a Host header that names a DNS host: a name, and perhaps a port.
_AUTHORITY = re.compile(r"(?P<name>[a-z0-9_.-]{1,255})(?::[0-9]{1,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class PreviewHost:
    """What a preview host asks for. `port` None is the session's own preview port."""

    session_id: UUID
    port: int | None = None

    def name(self, domain: str) -> str:
        """The host name, without a port of the service."""
        label = str(self.session_id) if self.port is None else f"{self.port}-{self.session_id}"
        return f"{label}.{domain}"


def host_name(authority: str) -> str | None:
    """The DNS name of a `Host` header in lower case, without port and final dot; None if it is not one."""
    match = _AUTHORITY.fullmatch(authority.lower())
    return match["name"].removesuffix(".") if match else None


def is_below(name: str, domain: str) -> bool:
    """Whether the name is below the preview domain, and so never the service's own."""
    return name.endswith(f".{domain}")


def parse_preview_host(name: str, domain: str) -> PreviewHost | None:
    """The session and port a name below `domain` asks for; None if it is not a preview host."""
    match = _LABEL.fullmatch(name.removesuffix(f".{domain}")) if is_below(name, domain) else None
    if match is None:
        return None
    port = int(match["port"]) if match["port"] else None
    if port is not None and port > 65535:
        return None
    return PreviewHost(UUID(match["id"]), port)
