"""Settings whose text has a format: what it means, and what is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from typing import Annotated

from pydantic import AfterValidator


@dataclass(frozen=True, slots=True)
class DiskReserve:
    """Disk space that is kept free: a number of bytes, or a share of the disk."""

    bytes: int = 0
    percent: int = 0

    def of(self, total: int) -> int:
        """In bytes, of a disk of this size."""
        return max(self.bytes, total * self.percent // 100)

    @classmethod
    def parse(cls, text: str) -> DiskReserve:
        """From `5%`, `512M` or `2G`. Raises ValueError."""
        found = re.fullmatch(r"([0-9]{1,9})([%MG])?", text)
        if found is None or (found[2] == "%" and int(found[1]) > 99):
            raise ValueError("must be a share of the disk as in 5%, or a size as in 512M or 2G; 0 for none")
        number = int(found[1])
        if found[2] == "%":
            return cls(percent=number)
        return cls(bytes=number * {None: 1, "M": 2**20, "G": 2**30}[found[2]])


def _check_reserve(value: str) -> str:
    DiskReserve.parse(value)
    return value


def _check_ipv4_networks(value: str) -> str:
    for network in filter(None, value.split(",")):
        IPv4Network(network.strip())
    return value


def _check_networks(value: str) -> str:
    for network in filter(None, value.split(",")):
        ip_network(network.strip())
    return value


def _check_tls(value: str) -> str:
    if value not in ("off", "internal", "acme") and ":" not in value:
        raise ValueError("must be off, internal, acme, or the paths of a certificate and its key with : between")
    return value


DiskReserveText = Annotated[str, AfterValidator(_check_reserve)]
#: Networks in CIDR notation, separated by commas.
IPv4Networks = Annotated[str, AfterValidator(_check_ipv4_networks)]
Networks = Annotated[str, AfterValidator(_check_networks)]
TlsMode = Annotated[str, AfterValidator(_check_tls)]
