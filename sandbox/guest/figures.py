"""What the container uses, as seen from inside: cgroup version 1 or 2, the workspace's disk, network, open ports."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection
from typing import Any

CGROUP = "/sys/fs/cgroup"
#: Version 1 says "no limit" by a number near 2**63.
UNLIMITED = 1 << 60
LISTENING = "0A"
#: 127.0.0.11, the engine's name server in a container of a network of its own, as /proc/net/tcp writes it.
ENGINE_RESOLVER = f"{int.from_bytes(bytes((127, 0, 0, 11)), sys.byteorder):08X}"
#: 127.0.0.1 and ::1, the same way.
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
    """The first of these files that holds a number."""
    for path in paths:
        text = _read(path).strip()
        if text.isdecimal():
            return int(text)
    return None


def _table(*paths: str) -> dict[str, int]:
    """The first of these files that holds lines of `name number`."""
    for path in paths:
        if text := _read(path):
            rows = (line.split() for line in text.splitlines())
            return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}
    return {}


def out_of_memory_kills() -> int:
    """How often the kernel has killed something in this container for memory."""
    return _table("memory.events", "memory/memory.oom_control").get("oom_kill", 0)


def stats(workspace: str) -> dict[str, Any]:
    """The figures of `AgentStats`."""
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
    """Addresses (as the kernel writes them) and ports in state LISTEN of the text of /proc/net/tcp or tcp6, without
    those of the engine's name server and of the sockets (inode numbers) that are left out."""
    rows = (line.split() for line in table.splitlines()[1:])
    listening = (row for row in rows if row[3:4] == [LISTENING] and "".join(row[9:10]) not in without)
    places = (row[1].rpartition(":") for row in listening)
    return {(address, int(port, 16)) for address, _, port in places if address != ENGINE_RESOLVER}


def _listening() -> set[tuple[str, int]]:
    places: set[tuple[str, int]] = set()
    own = _own_sockets()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/net/{name}", encoding="ascii") as file:
            places |= parse_listening(file.read(), own)
    return places


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
    """TCP ports something listens on, on any address; the agent's own are left out."""
    return sorted({port for _, port in _listening()})


def listens_on_loopback_only(port: int) -> bool:
    """Whether something listens on this port, and nothing that can be reached from outside the container."""
    addresses = {address for address, other in _listening() if other == port}
    return bool(addresses) and addresses <= LOOPBACK
