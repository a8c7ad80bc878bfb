"""Keeps the engine's name server from containers on the shared network.

That server answers with the name and address of every container on a network, so a sandbox could list the sessions of
others. Containers on the shared network have no names to look up there: their `/etc/resolv.conf` names the host's own
name servers, and a rule in their network namespace closes the engine's.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from sandbox.errors import EngineError

_RESOLVERS = Path("/etc/resolv.conf")
#: Where systemd-resolved lists the name servers that it asks itself. Engines take these, too.
_SYSTEMD_RESOLVERS = Path("/run/systemd/resolve/resolv.conf")
RESOLVER_FILE = "/etc/resolv.conf"
#: Where the engine's name server listens in every container of a network that it manages.
_ENGINE_RESOLVER = "127.0.0.11"
_KEPT = ("search", "options")
_NFT_SECONDS = 10
_TABLE = "purple8_names"
_RULES = f"""
add table inet {_TABLE}
delete table inet {_TABLE}
table inet {_TABLE} {{
  chain output {{ type filter hook output priority -200; policy accept; ip daddr {_ENGINE_RESOLVER} reject; }}
}}
"""


def name_servers(file: Path = _RESOLVERS, systemd: Path = _SYSTEMD_RESOLVERS) -> list[IPv4Address]:
    """Return the IPv4 name servers that containers can ask: those of the host, or those behind systemd-resolved."""
    found = [address for address in _addresses(file) if not address.is_loopback]
    return found or [address for address in _addresses(systemd) if not address.is_loopback]


def write_resolver_file(target: Path, file: Path = _RESOLVERS, systemd: Path = _SYSTEMD_RESOLVERS) -> Path | None:
    """Write the `/etc/resolv.conf` of containers and return its path; None if the host has no name server for them.

    The file is rewritten in place, so that containers that have it mounted see changes.
    """
    servers = name_servers(file, systemd)
    if not servers:
        return None
    kept = [line for line in _lines(file) if line.split()[:1] and line.split()[0] in _KEPT]
    content = "\n".join([*(f"nameserver {address}" for address in servers), *kept]) + "\n"
    if not target.exists() or target.read_text() != content:
        target.write_text(content)
        target.chmod(0o644)
    return target


def hide_names(container: Mapping[str, Any]) -> None:
    """Close the engine's name server in a running container, given as the engine inspects it. Blocks.

    Does nothing for a container that was made without a resolver file: it has no other name server.
    Raises EngineError `names_visible`.
    """
    mounted = any(mount.get("Destination") == RESOLVER_FILE for mount in container.get("Mounts") or [])
    namespace = (container.get("NetworkSettings") or {}).get("SandboxKey")
    if not mounted or not namespace:
        return
    command = ["nsenter", f"--net={namespace}", "nft", "-f", "-"]
    try:
        done = subprocess.run(command, input=_RULES, capture_output=True, text=True, check=False, timeout=_NFT_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _visible(str(error)) from error
    if done.returncode != 0:
        raise _visible(done.stderr.strip()[-500:])


def _visible(reason: str) -> EngineError:
    return EngineError(
        f"the engine's name server could not be closed in the container: {reason}",
        code="names_visible",
        hint="the service needs root, nsenter and nft on the engine's host; run `sandbox doctor`",
    )


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _addresses(file: Path) -> Iterator[IPv4Address]:
    for line in _lines(file):
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                yield IPv4Address(words[1])
            except ValueError:
                continue  # an IPv6 address, which containers cannot reach
