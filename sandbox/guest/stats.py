"""Resource usage of the container, measured from inside: cgroup version 1 or 2, disk, network, and open ports."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection
from typing import Any

CGROUP = "/sys/fs/cgroup"
#: Version 1 expresses "no limit" as a number near 2**63.
UNLIMITED = 1 << 60
LISTENING = "0A"
#: 127.0.0.11, where the engine's DNS server listens in a container, in the notation of /proc/net/tcp.
ENGINE_RESOLVER = f"{int.from_bytes(bytes((127, 0, 0, 11)), sys.byteorder):08X}"
#: 127.0.0.1 and ::1 in the same notation.
LOOPBACK = {
    f"{int.from_bytes(bytes((127, 0, 0, 1)), sys.byteorder):08X}",
    f"{int.from_bytes(bytes((0, 0, 0, 1)), sys.byteorder):032X}",
}


def _read(path: str) -> str:
    try:
        with open(f"{CGROUP}/{path}", encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def _number(*paths: str) -> int | None:
    """The content of the first of these files that consists of a number."""
    for path in paths:
        text = _read(path).strip()
        if text.isdecimal():
            return int(text)
    return None


def _table(*paths: str) -> dict[str, int]:
    """The content of the first of these files that is not empty, lines of `name number`."""
    for path in paths:
        if text := _read(path):
            rows = (line.split() for line in text.splitlines())
            return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}
    return {}


def out_of_memory_kills() -> int:
    """How many processes of this container the kernel has killed because memory ran out."""
    return _table("memory.events", "memory/memory.oom_control").get("oom_kill", 0)


def read_stats(workspace: str) -> dict[str, Any]:
    """The fields of `GuestStats`."""
    disk = os.statvfs(workspace)
    received, sent = _network()
    usage = _number("memory.current", "memory/memory.usage_in_bytes") or 0
    cache = _table("memory.stat", "memory/memory.stat")
    limit = _number("memory.max", "memory/memory.limit_in_bytes")
    return {
        "cpu_seconds": _cpu_seconds(),
        "memory_bytes": max(0, usage - cache.get("total_inactive_file", cache.get("inactive_file", 0))),
        "memory_limit_bytes": None if limit is None or limit > UNLIMITED else limit,
        "pids": _number("pids.current", "pids/pids.current") or 0,
        "disk_used_bytes": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
        "disk_total_bytes": disk.f_blocks * disk.f_frsize,
        "network_received_bytes": received,
        "network_sent_bytes": sent,
    }


def _cpu_seconds() -> float:
    usage = _table("cpu.stat").get("usage_usec")
    if usage is not None:
        return usage / 1e6
    return (_number("cpuacct/cpuacct.usage", "cpu,cpuacct/cpuacct.usage") or 0) / 1e9


def _network() -> tuple[int, int]:
    """Bytes received and sent on everything but the loopback."""
    received = sent = 0
    with open("/proc/net/dev", encoding="ascii") as file:
        for line in file.readlines()[2:]:
            name, _, rest = line.partition(":")
            columns = rest.split()
            if name.strip() != "lo" and len(columns) >= 9:
                received += int(columns[0])
                sent += int(columns[8])
    return received, sent


def parse_listening(table: str, without: Collection[str] = ()) -> set[tuple[str, int]]:
    """Addresses (in the kernel's notation) and ports in state LISTEN, from the text of /proc/net/tcp or tcp6.

    The engine's DNS server is left out, and so are the sockets `without`, which are inode numbers.
    """
    rows = (line.split() for line in table.splitlines()[1:])
    listening = (row for row in rows if row[3:4] == [LISTENING] and "".join(row[9:10]) not in without)
    addresses = (row[1].rpartition(":") for row in listening)
    return {(address, int(port, 16)) for address, _, port in addresses if address != ENGINE_RESOLVER}


def _listening() -> set[tuple[str, int]]:
    found: set[tuple[str, int]] = set()
    own = _own_sockets()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/net/{name}", encoding="ascii") as file:
            found |= parse_listening(file.read(), own)
    return found


def _own_sockets() -> set[str]:
    """Inode numbers of this process's sockets."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            kind, _, inode = os.readlink(f"/proc/self/fd/{name}").partition(":")
            if kind == "socket":
                found.add(inode.strip("[]"))
    return found


def listening_ports() -> list[int]:
    """TCP ports on which something listens, on any address, without those of the guest agent."""
    return sorted({port for _, port in _listening()})


def listens_on_loopback_only(port: int) -> bool:
    """Whether something listens on this port, and only on addresses that other containers cannot reach."""
    addresses = {address for address, other in _listening() if other == port}
    return bool(addresses) and addresses <= LOOPBACK
