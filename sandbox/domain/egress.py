"""Which addresses a session's containers may reach."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any, Literal

#: Entries of one allow list.
MAX_DESTINATIONS = 50
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Egress:
    """What the containers of a session may connect to, apart from each other.

    `all` is the public internet, without private, link-local and metadata addresses and without the host. `none` is
    nothing. `list` is `destinations` and nothing else: IPv4 networks such as `203.0.113.0/24`, and host names. A host
    name stands for the addresses that it resolves to on the host, which the containers find in `/etc/hosts`.
    """

    mode: Literal["all", "none", "list"] = "all"
    destinations: tuple[str, ...] = ()

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(entry for entry in self.destinations if _network(entry) is None)

    @property
    def networks(self) -> tuple[IPv4Network, ...]:
        return tuple(network for entry in self.destinations if (network := _network(entry)) is not None)

    def to_json(self) -> str | list[str]:
        """`all`, `none` or the list of destinations, as in a request."""
        return list(self.destinations) if self.mode == "list" else self.mode


#: What a session may reach unless its request or its project says otherwise.
PUBLIC = Egress()


def parse_egress(value: Any) -> Egress:
    """Read `all`, `none` or a list of destinations. Raises ValueError with the reason."""
    if value in ("all", "none"):
        return Egress(value)
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ValueError("egress is all, none, or a list of host names and IPv4 networks")
    if not 0 < len(value) <= MAX_DESTINATIONS:
        raise ValueError(f"egress has {len(value)} destinations; a list has 1 to {MAX_DESTINATIONS}, else use none")
    destinations = tuple(dict.fromkeys(entry.strip().lower().rstrip(".") for entry in value))
    for entry in destinations:
        if _network(entry) is None and (not _HOST.fullmatch(entry) or entry.rsplit(".", 1)[-1].isdigit()):
            raise ValueError(
                f"{entry[:80]!r} is neither a host name such as api.example.com nor an IPv4 network such as "
                "203.0.113.0/24; wildcards are not supported"
            )
    return Egress("list", destinations)


def _network(entry: str) -> IPv4Network | None:
    try:
        return IPv4Network(entry)
    except ValueError:
        return None
