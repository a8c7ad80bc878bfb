"""The nftables rules that decide what containers may reach.

A table of our own, evaluated before the engine's rules (priority -10 against 0), so that neither changes the other.
Packets are matched by the bridge that they come from. A connection that the host or a visitor has opened to a container
is not affected: the reply belongs to an established connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from typing import Literal

from sandbox.engine.docker import refusals

#: Addresses that are not on the public internet (RFC 6890): the host's own networks, other containers, metadata
#: services of clouds. Networks that are reserved for documentation lead nowhere and are left out.
PRIVATE = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_REFUSE = "goto refused"


@dataclass(frozen=True, slots=True)
class GuardedNetwork:
    """A network of this deployment, and what its containers may reach."""

    #: Name of the network's interface on the host.
    bridge: str
    mode: Literal["all", "none", "list"] = "all"
    #: Of `list`: the destinations, host names resolved.
    allowed: tuple[IPv4Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Service:
    """Something that containers with egress `all` need although its address is private: a name server, a proxy or a
    package index of the host."""

    address: IPv4Address
    port: int


def ruleset(
    table: str,
    networks: Sequence[GuardedNetwork],
    services: Iterable[Service] = (),
    permitted: Iterable[IPv4Network] = (),
    refused: Iterable[refusals.Count] = (),
) -> str:
    """Return the input of `nft -f -` that replaces the table in one transaction.

    Args:
        services: What containers reach although its address is private, one port each.
        permitted: Private networks that the operator has opened to all containers.
        refused: What the table that is replaced has counted.
    """
    reachable = sorted({f"{service.address} . {service.port}" for service in services})
    chains = [_chain(f"allowed_{number}", network) for number, network in enumerate(networks)]
    lines = [
        f"add table inet {table}",
        f"delete table inet {table}",
        f"table inet {table} {{",
        _set("bridges", "ifname", [f'"{network.bridge}"' for network in networks]),
        _set("private4", "ipv4_addr", [str(network) for network in PRIVATE], "flags interval;"),
        _set("permitted4", "ipv4_addr", _collapsed(permitted), "flags interval;"),
        _set("services", "ipv4_addr . inet_service", reachable),
        *refusals.rules(refused),
        "chain public {",
        "  ip daddr . th dport @services accept",
        "  ip daddr @permitted4 accept",
        f"  ip daddr @private4 {_REFUSE}",
        f"  meta nfproto ipv6 {_REFUSE}",
        "  accept",
        "}",
        *(chain for chain in chains if chain),
        "chain outbound {",
        "  ct state established,related accept",
        *(_rule(number, network) for number, network in enumerate(networks)),
        "}",
        "chain forwarded { type filter hook forward priority -10; policy accept; iifname @bridges jump outbound; }",
        "chain host {",
        "  type filter hook input priority -10; policy accept;",
        "  iifname != @bridges accept",
        "  ct state established,related accept",
        *(f'  iifname "{network.bridge}" jump host_services' for network in networks if network.mode == "all"),
        f"  {_REFUSE}",
        "}",
        "chain host_services { ip daddr . th dport @services accept; }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _rule(number: int, network: GuardedNetwork) -> str:
    """Traffic within the network is left to the engine's rules; everything else goes to the chain of its mode."""
    within = f'  iifname "{network.bridge}" oifname "{network.bridge}" accept\n'
    if network.mode == "all":
        return f'{within}  iifname "{network.bridge}" goto public'
    if network.mode == "none" or not network.allowed:
        return f'{within}  iifname "{network.bridge}" {_REFUSE}'
    return f'{within}  iifname "{network.bridge}" goto allowed_{number}'


def _chain(name: str, network: GuardedNetwork) -> str:
    if network.mode != "list" or not network.allowed:
        return ""
    # A list never opens what is closed to everyone: private addresses stay closed, unless they are services.
    allowed = ", ".join(_collapsed(network.allowed))
    return f"chain {name} {{\n  ip daddr {{ {allowed} }} goto public\n  {_REFUSE}\n}}"


def _collapsed(networks: Iterable[IPv4Network]) -> list[str]:
    """Return the networks without overlaps, which nft refuses in a set."""
    return [str(network) for network in collapse_addresses(networks)]


def _set(name: str, kind: str, elements: Sequence[str], flags: str = "") -> str:
    listed = f"elements = {{ {', '.join(elements)} }};" if elements else ""
    return f"set {name} {{ type {kind}; {flags} {listed} }}"
