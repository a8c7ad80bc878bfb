"""Free subnets of a configured range. Docker's own default pools end at about 30 networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network


def free_subnets(pool: IPv4Network, prefix: int, taken: Iterable[IPv4Network], start: int = 0) -> Iterator[IPv4Network]:
    """Every /`prefix` block of `pool` that overlaps nothing in `taken`, from the block numbered `start` (taken modulo
    their count) on and round.

    A network in `taken` that covers the whole pool (a VPN's route to 10.0.0.0/8) is left out of account: no choice of
    block could avoid it, and the bridge's more specific route wins.
    """
    size = 1 << (32 - prefix)
    first, count = int(pool.network_address), pool.num_addresses // size
    used: set[int] = set()
    for network in taken:
        if not network.overlaps(pool) or pool.subnet_of(network):
            continue
        start = (int(network.network_address) - first) // size
        end = (int(network.broadcast_address) - first) // size
        used.update(range(start, end + 1))
    for number in range(start, start + count):
        if number % count not in used:
            yield IPv4Network((first + number % count * size, prefix))
