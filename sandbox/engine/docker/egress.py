"""What a network's containers may reach, stored as the network's label.

Host names are resolved once, before the network is created. The addresses are in the rules of the firewall and in the
`/etc/hosts` of the containers, so both agree for as long as the network exists.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal

from sandbox.domain.egress import Egress
from sandbox.engine import labels
from sandbox.errors import EngineError, Kind

_RESOLVE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Reach:
    """An `Egress` with its host names resolved."""

    mode: Literal["all", "none", "list"] = "all"
    networks: tuple[str, ...] = ()
    #: The IPv4 addresses of each host name.
    hosts: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def addresses(self) -> tuple[IPv4Network, ...]:
        named = (address for found in self.hosts.values() for address in found)
        return tuple(IPv4Network(entry) for entry in (*self.networks, *named))

    @property
    def host_entries(self) -> list[str]:
        """Lines for `/etc/hosts`, in the engine's form `name:address`."""
        return [f"{name}:{address}" for name, found in self.hosts.items() for address in found]

    def label(self) -> dict[str, str]:
        if self.mode == "all":
            return {}
        return {labels.EGRESS: json.dumps({"mode": self.mode, "networks": self.networks, "hosts": self.hosts})}


def reach_of(network: Mapping[str, Any]) -> Reach:
    """Return the `Reach` of a network in the engine's list. One without the label may reach `all`."""
    text = (network.get("Labels") or {}).get(labels.EGRESS)
    if not text:
        return Reach()
    stored = json.loads(text)
    return Reach(stored["mode"], tuple(stored["networks"]), stored["hosts"])


async def resolve(egress: Egress) -> Reach:
    """Resolve the host names. Raises EngineError `egress_host_unknown`."""
    try:
        async with asyncio.timeout(_RESOLVE_SECONDS):
            found = await asyncio.gather(*(asyncio.to_thread(host_addresses, host) for host in egress.hosts))
    except TimeoutError:
        raise _unknown("the name servers did not answer") from None
    hosts = {host: [str(address) for address in each] for host, each in zip(egress.hosts, found, strict=True)}
    if missing := [host for host, each in hosts.items() if not each]:
        raise _unknown(f"{', '.join(missing)} has no IPv4 address")
    return Reach(egress.mode, tuple(map(str, egress.networks)), hosts)


def host_addresses(host: str) -> list[IPv4Address]:
    """Return the IPv4 addresses of a host name or address, in order; empty if it has none. Blocks."""
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({IPv4Address(entry[4][0]) for entry in found})


def _unknown(reason: str) -> EngineError:
    return EngineError(
        f"a destination of the session's egress could not be resolved: {reason}",
        code="egress_host_unknown",
        kind=Kind.INVALID,
        hint="correct the name, or give an IPv4 network instead",
    )
