"""This host's IPv4 routes, used to choose the subnets and the MTU of networks. Empty on systems other than Linux."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

_ROUTES = Path("/proc/net/route")
_INTERFACES = Path("/sys/class/net")
_IPV6 = Path("/proc/sys/net/ipv6")


def _routes(table: Path) -> list[tuple[str, IPv4Network]]:
    """Return (interface, destination) of every IPv4 route. The default route's destination is 0.0.0.0/0."""
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
    """Return the destinations of all routes except the default route."""
    return [network for _, network in _routes(table) if network.prefixlen > 0]


def default_route_mtu(table: Path = _ROUTES, interfaces: Path = _INTERFACES) -> int | None:
    """Return the MTU of the default route's interface, or None if there is none.

    If a bridge has a larger MTU, large downloads in its containers hang.
    """
    for interface, network in _routes(table):
        if network.prefixlen == 0:
            try:
                return int((interfaces / interface / "mtu").read_text())
            except (OSError, ValueError):
                return None
    return None


def has_ipv6(settings: Path = _IPV6) -> bool:
    """Return whether this kernel supports IPv6, whether or not it is in use."""
    return settings.exists()
