"""How many connections one address may have at the edge: a rule of the kernel's firewall. Caddy has no such limit.

Addresses of this machine and of proxies that are trusted stand for many clients, so the limit is not for them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from sandbox.edge.program import EdgeUnavailable
from sandbox.settings import Settings

_NFT_SECONDS = 10
_OWN = ("127.0.0.0/8", "::1/128")


def apply_limit(settings: Settings) -> None:
    """Put SANDBOX_CONNECTIONS_PER_ADDRESS in force; with 0, remove the rule of an earlier start. Blocks for
    milliseconds. Raises EdgeUnavailable if rules cannot be set here."""
    limit, port = settings.connections_per_address, settings.port
    if limit == 0:
        remove_limit(port)
        return
    trusted = filter(None, (each.strip() for each in settings.trusted_proxies.split(",")))
    failure = _why_not() or _nft(ruleset(port, limit, [*_OWN, *trusted]))
    if failure:
        raise EdgeUnavailable(
            f"Connections of one address cannot be limited here: {failure}",
            hint="Run the service as root with the package nftables, or set SANDBOX_CONNECTIONS_PER_ADDRESS to 0.",
        )


def remove_limit(port: int) -> None:
    """Remove the rule. Absent already is success."""
    if _why_not() is None:
        _nft(f"add table inet {_table(port)}\ndelete table inet {_table(port)}\n")


def ruleset(port: int, limit: int, exempt: Iterable[str]) -> str:
    """The rules as nft reads them. They replace earlier ones; connections that are open stay open, and count."""
    networks = [ip_network(each) for each in exempt]
    v4 = collapse_addresses(each for each in networks if isinstance(each, IPv4Network))
    v6 = collapse_addresses(each for each in networks if isinstance(each, IPv6Network))
    table = _table(port)
    rules = "\n".join(
        f"    tcp dport {port} ct state new {family} saddr != {{ {', '.join(map(str, free))} }} "
        f"add @{counted} {{ {family} saddr ct count over {limit} }} reject with tcp reset"
        for family, counted, free in (("ip", "open4", v4), ("ip6", "open6", v6))
    )
    return f"""add table inet {table}
delete table inet {table}
table inet {table} {{
  set open4 {{ type ipv4_addr; flags dynamic; size 65535; }}
  set open6 {{ type ipv6_addr; flags dynamic; size 65535; }}
  chain input {{
    type filter hook input priority filter - 10; policy accept;
{rules}
  }}
}}
"""


def _table(port: int) -> str:
    return f"purple8_edge_{port}"


def _why_not() -> str | None:
    if shutil.which("nft") is None:
        return "the program nft is missing"
    return None if os.geteuid() == 0 else "the service does not run as root"


def _nft(rules: str) -> str:
    """What went wrong; empty if nothing did."""
    command = ["nft", "-f", "-"]
    try:
        done = subprocess.run(command, input=rules, capture_output=True, text=True, check=False, timeout=_NFT_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nft does not run: {error}"
    return done.stderr.strip()[-500:] or f"nft ended with {done.returncode}" if done.returncode else ""
