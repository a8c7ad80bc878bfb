"""Finds free subnets in a configured address range. Docker's own default ranges suffice for about 30 networks only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network


def free_subnets(pool: IPv4Network, prefix: int, used: Iterable[IPv4Network], start: int = 0) -> Iterator[IPv4Network]:
    """Yield every /`prefix` subnet of `pool` that overlaps no network in `used`.

    They are yielded in order, beginning with number `start` modulo their count and wrapping around at the end.

    A network in `used` that covers the whole pool, such as a VPN's route to 10.0.0.0/8, is ignored: no subnet could
    avoid it, and the bridge's route is more specific and therefore takes precedence.
    """
    size = 1 << (32 - prefix)
    first, count = int(pool.network_address), pool.num_addresses // size
    used_numbers: set[int] = set()
    for network in used:
        if not network.overlaps(pool) or pool.subnet_of(network):
            continue
        lowest = (int(network.network_address) - first) // size
        highest = (int(network.broadcast_address) - first) // size
        used_numbers.update(range(lowest, highest + 1))
    for number in range(start, start + count):
        if number % count not in used_numbers:
            yield IPv4Network((first + number % count * size, prefix))
