"""What this host's routing table says, for choosing subnets and the MTU of our bridges. Nothing where not on Linux."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

_ROUTES = Path("/proc/net/route")
_INTERFACES = Path("/sys/class/net")
_IPV6 = Path("/proc/sys/net/ipv6")


def _routes(table: Path) -> list[tuple[str, IPv4Network]]:
    """(interface, destination) of every IPv4 route; the default route's destination is 0.0.0.0/0."""
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return []
    found = []
    for line in lines:
        fields = line.split()
        if len(fields) < 8:
            continue
        address, mask = (IPv4Address(struct.pack("<I", int(fields[i], 16))) for i in (1, 7))
        found.append((fields[0], IPv4Network(f"{address}/{mask}", strict=False)))
    return found


def routed_networks(table: Path = _ROUTES) -> list[IPv4Network]:
    """Destinations this host has a route to, but for the default route."""
    return [network for _, network in _routes(table) if network.prefixlen > 0]


def default_route_mtu(table: Path = _ROUTES, interfaces: Path = _INTERFACES) -> int | None:
    """MTU of the default route's interface: a bridge with a larger one makes large downloads in containers hang."""
    for interface, network in _routes(table):
        if network.prefixlen == 0:
            try:
                return int((interfaces / interface / "mtu").read_text())
            except (OSError, ValueError):
                return None
    return None


def knows_ipv6(settings: Path = _IPV6) -> bool:
    """Whether this kernel has IPv6 at all, in use or not."""
    return settings.exists()
