"""Keeps the engine's name server from containers on the shared network.

That server answers with the name and address of every container on a network, so a sandbox could list the sessions of
others. Containers on the shared network have no names to look up there: their `/etc/resolv.conf` names the host's own
name servers, and a rule in their network namespace closes the engine's. A container of the pool that moves to a
session's own network gets the engine's name server back, which resolves the session's roles.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from sandbox.errors import EngineError

_RESOLVERS = Path("/etc/resolv.conf")
#: Where systemd-resolved lists the name servers that it asks itself. Engines take these, too.
_SYSTEMD_RESOLVERS = Path("/run/systemd/resolve/resolv.conf")
#: Where the engine's name server listens in every container of a network that it manages.
_ENGINE_RESOLVER = "127.0.0.11"
_KEPT = ("search", "options")
_NFT_SECONDS = 10
_TABLE = "purple8_names"
_OPEN = f"""
add table inet {_TABLE}
delete table inet {_TABLE}
"""
_CLOSE = f"""{_OPEN}
table inet {_TABLE} {{
  chain output {{ type filter hook output priority -200; policy accept; ip daddr {_ENGINE_RESOLVER} reject; }}
}}
"""


def name_servers(file: Path = _RESOLVERS, systemd: Path = _SYSTEMD_RESOLVERS) -> list[IPv4Address]:
    """Return the IPv4 name servers that containers can ask: those of the host, or those behind systemd-resolved."""
    found = [address for address in _addresses(file) if not address.is_loopback]
    return found or [address for address in _addresses(systemd) if not address.is_loopback]


def hide_names(container: Mapping[str, Any]) -> None:
    """Have a running container, given as the engine inspects it, ask the host's name servers, and close the engine's.
    Blocks.

    Does nothing on a host whose only name server is on its loopback: containers cannot reach that one.
    Raises EngineError `names_visible`.
    """
    servers = name_servers()
    if servers:
        _write_resolvers(container, [*(f"nameserver {server}" for server in servers), *_kept_lines()])
        _run_nft(container, _CLOSE)


def show_names(container: Mapping[str, Any]) -> None:
    """Undo `hide_names` in a container that has left the shared network for its session's own. Blocks.

    Raises EngineError `names_visible`.
    """
    _write_resolvers(container, [f"nameserver {_ENGINE_RESOLVER}", *_kept_lines(), "options ndots:0"])
    _run_nft(container, _OPEN)


def _write_resolvers(container: Mapping[str, Any], lines: Sequence[str]) -> None:
    """Write the file that the engine mounts as the container's `/etc/resolv.conf`, in place."""
    try:
        Path(container["ResolvConfPath"]).write_text("\n".join(lines) + "\n")
    except OSError as error:
        raise _visible(str(error)) from error


def _kept_lines() -> list[str]:
    return [line for line in _lines(_RESOLVERS) if line.split()[:1] and line.split()[0] in _KEPT]


def _run_nft(container: Mapping[str, Any], rules: str) -> None:
    command = ["nsenter", f"--net={container['NetworkSettings']['SandboxKey']}", "nft", "-f", "-"]
    try:
        done = subprocess.run(command, input=rules, capture_output=True, text=True, check=False, timeout=_NFT_SECONDS)
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
