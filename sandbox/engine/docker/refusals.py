"""The set of nftables in which the firewall counts refused connections, by container and destination.

The kernel keeps the counts, so refusals are counted while the service is down as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.engine import labels
from sandbox.engine.base import Refusal

#: Name of the set in the deployment's table.
SET = "refusals"
#: Destinations that are counted until the set is read. Further ones are refused, and not counted.
_SIZE = 4096
#: What one container may add to the set, so that it leaves room for others: packets each second, and at once.
_RATE, _BURST = 20, 100
REJECT = "reject with icmpx type admin-prohibited"


@dataclass(frozen=True, slots=True)
class Count:
    """An element of the set: packets that a container has sent to one destination, each an attempt to connect."""

    source: str
    address: str
    #: tcp or udp
    protocol: str
    port: int
    packets: int

    def element(self) -> str:
        """The element in the syntax of nft."""
        return f"{self.source} . {self.address} . {self.protocol} . {self.port} counter packets {self.packets} bytes 0"


def rules(counts: Iterable[Count]) -> list[str]:
    """Return the sets, and the chain `refused`, which counts a packet and rejects it. `counts` are those so far."""
    kept = ", ".join(count.element() for count in counts)
    elements = f"elements = {{ {kept} }};" if kept else ""
    key = "ip saddr . ip daddr . meta l4proto . th dport"
    types = "ipv4_addr . ipv4_addr . inet_proto . inet_service"
    return [
        f"set {SET} {{ type {types}; size {_SIZE}; flags dynamic; {elements} }}",
        f"set paces {{ type ipv4_addr; size {_SIZE}; flags dynamic,timeout; timeout 1m; }}",
        "chain refused {",
        f"  update @paces {{ ip saddr limit rate over {_RATE}/second burst {_BURST} packets }} {REJECT}",
        f"  meta l4proto {{ tcp, udp }} update @{SET} {{ {key} counter }}",
        f"  {REJECT}",
        "}",
    ]


def parse(listing: str) -> list[Count]:
    """Read the output of `nft -j list set`."""
    return [count for entry in json.loads(listing)["nftables"] for count in _counts(entry.get("set") or {})]


def _counts(found: Mapping[str, Any]) -> Iterator[Count]:
    for entry in found.get("elem", ()):
        source, address, protocol, port = entry["elem"]["val"]["concat"]
        yield Count(source, address, protocol, int(port), int(entry["elem"]["counter"]["packets"]))


def attribute(counts: Iterable[Count], containers: Sequence[Mapping[str, Any]]) -> list[Refusal]:
    """Return the refusals of sessions, given the engine's list of containers. What no session has now is left out."""
    owners = {
        network["IPAddress"]: owner
        for container in containers
        if (owner := labels.container_owner(container["Names"][0].lstrip("/"))) and owner[1] != labels.POOL_ROLE
        for network in ((container.get("NetworkSettings") or {}).get("Networks") or {}).values()
    }
    return [
        Refusal(*owners[count.source], count.address, count.port, count.protocol, count.packets)
        for count in counts
        if count.source in owners
    ]
