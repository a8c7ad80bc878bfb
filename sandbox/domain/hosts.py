"""Names of preview hosts: `{session_id}.{domain}` and `{port}-{session_id}.{domain}`.

`Host` headers are untrusted input.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

#: A UUID with or without hyphens, and before it an optional port. At most 42 characters, so it fits one DNS label.
_LABEL = re.compile(
    r"(?:(?P<port>[1-9][0-9]{0,4})-)?(?P<id>[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.ASCII
)
#: A Host header with a DNS name and an optional port.
_AUTHORITY = re.compile(r"(?P<name>[a-z0-9_.-]{1,255})(?::[0-9]{1,5})?", re.ASCII)


#: A header of the answers that the service and the proxy in front of it give in an app's place, with the error's code.
ANSWER_HEADER = "x-sandbox-answer"


@dataclass(frozen=True, slots=True)
class PreviewHost:
    """The session and port that a preview host names. `port` None means the session's preview port."""

    session_id: UUID
    port: int | None = None

    def name(self, domain: str) -> str:
        """The host name, without the port of the service."""
        label = str(self.session_id) if self.port is None else f"{self.port}-{self.session_id}"
        return f"{label}.{domain}"


def host_name(authority: str) -> str | None:
    """The DNS name in a `Host` header, in lower case, without port and final dot; None if the header is invalid."""
    match = _AUTHORITY.fullmatch(authority.lower())
    return match["name"].removesuffix(".") if match else None


def is_below(name: str, domain: str) -> bool:
    """Whether the name is a subdomain of the preview domain, and so not the service's own name."""
    return name.endswith(f".{domain}")


def parse_preview_host(name: str, domain: str) -> PreviewHost | None:
    """The session and port that a name below `domain` stands for; None if it is not a preview host."""
    match = _LABEL.fullmatch(name.removesuffix(f".{domain}")) if is_below(name, domain) else None
    if match is None:
        return None
    port = int(match["port"]) if match["port"] else None
    if port is not None and port > 65535:
        return None
    return PreviewHost(UUID(match["id"]), port)
