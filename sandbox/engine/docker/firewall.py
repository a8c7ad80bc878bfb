"""Puts the rules of `firewall_rules` in force on the engine's host, from the networks that the engine has.

A network carries what its containers may reach as a label (`egress.py`), so the rules follow from the engine alone: a
new process of this service, or another replica on the host, computes the same ones.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import docker

from sandbox.engine import labels
from sandbox.engine.base import Refusal
from sandbox.engine.docker import refusals
from sandbox.engine.docker.calls import DockerCalls
from sandbox.engine.docker.egress import host_addresses, reach_of
from sandbox.engine.docker.firewall_rules import GuardedNetwork, Service, ruleset
from sandbox.engine.docker.name_service import name_servers
from sandbox.errors import EngineError, Kind

_NFT_SECONDS = 10
_LOCKS = Path("/run/lock")
_DNS_PORT = 53
#: How long the addresses of package indexes and proxies are remembered.
_RESOLVE_SECONDS = 60.0
_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080}
#: Package indexes that containers use by default. A mirror of the host's network may answer for them.
_INDEXES = ("https://pypi.org", "https://files.pythonhosted.org", "https://registry.npmjs.org")


def why_not(local: bool) -> str | None:
    """Return why rules cannot be set here, or None if they can."""
    if not local:
        return "the container engine is on another machine"
    if shutil.which("nft") is None:
        return "the program nft is missing; install the package nftables"
    if os.geteuid() != 0:
        return "the service does not run as root, which setting rules of the network needs"
    return None


def table_name(deployment_id: UUID) -> str:
    """Return the name of the deployment's table in the family `inet`."""
    return f"purple8_{deployment_id.hex[:12]}"


class Firewall:
    """The rules of one deployment. `apply` blocks; call it in a thread."""

    def __init__(
        self,
        calls: DockerCalls,
        deployment_id: UUID,
        environment: Mapping[str, str],
        permitted: Iterable[IPv4Network] = (),
    ) -> None:
        """`environment` is that of the containers: its proxies and package indexes stay reachable."""
        self._calls = calls
        self._deployment_id = deployment_id
        self._table = table_name(deployment_id)
        self._environment = dict(environment)
        self._permitted = tuple(permitted)
        self._resolved: list[Service] = []
        self._resolved_until = 0.0

    def apply(self, client: docker.APIClient) -> bool:
        """Put the rules for the networks that the engine has now in force. Return whether they were there before.

        Raises EngineError `egress_unavailable`.
        """
        if (reason := why_not(self._calls.local)) is not None:
            raise unavailable(reason)
        with self._exclusive():
            networks = list(self._guarded(client))
            refused = self._refused()
            rules = ruleset(self._table, networks, self._services(), self._permitted, refused or ())
            done = self._nft("-f", "-", rules=rules)
        if done.returncode != 0:
            raise unavailable(f"nft refused the rules: {done.stderr.strip()[-500:]}")
        return refused is not None

    def take_refusals(self, client: docker.APIClient) -> list[Refusal]:
        """Return the connections that were refused since the last call, and forget them.

        Raises EngineError `egress_unavailable`.
        """
        if (reason := why_not(self._calls.local)) is not None:
            raise unavailable(reason)
        with self._exclusive():
            refused = self._refused()
            if not refused:
                return []
            self._nft("flush", "set", "inet", self._table, refusals.SET)
        own = {"label": f"{labels.DEPLOYMENT}={self._deployment_id}"}
        return refusals.attribute(refused, client.containers(filters=own))

    def _refused(self) -> list[refusals.Count] | None:
        """Return what the rules in force have counted, or None if there are no rules."""
        listed = self._nft("-j", "list", "set", "inet", self._table, refusals.SET)
        return refusals.parse(listed.stdout) if listed.returncode == 0 else None

    def _guarded(self, client: docker.APIClient) -> Iterator[GuardedNetwork]:
        own = {"label": f"{labels.DEPLOYMENT}={self._deployment_id}"}
        for network in client.networks(filters=own):
            options = network.get("Options") or {}
            bridge = options.get("com.docker.network.bridge.name") or f"br-{network['Id'][:12]}"
            reach = reach_of(network)
            yield GuardedNetwork(bridge, reach.mode, reach.addresses)

    def _services(self) -> list[Service]:
        """The services, resolved again after `_RESOLVE_SECONDS`."""
        if time.monotonic() > self._resolved_until:
            self._resolved = list(self._resolve())
            self._resolved_until = time.monotonic() + _RESOLVE_SECONDS
        return self._resolved

    def _resolve(self) -> Iterator[Service]:
        for address in name_servers():
            yield Service(address, _DNS_PORT)
        for url in (*_INDEXES, *_urls(self._environment)):
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme)
            if parts.hostname and port:
                yield from (Service(address, port) for address in host_addresses(parts.hostname))

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the lock of this table: of two processes, the one that reads the networks later also writes later."""
        folder = _LOCKS if _LOCKS.is_dir() else Path("/run")
        with (folder / f"{self._table}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _nft(self, *arguments: str, rules: str = "") -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["nft", *arguments], input=rules, capture_output=True, text=True, check=False, timeout=_NFT_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise unavailable(f"nft could not be run: {error}") from error


def unavailable(reason: str) -> EngineError:
    return EngineError(
        f"what sandboxes may reach cannot be restricted on this host: {reason}",
        code="egress_unavailable",
        kind=Kind.UNAVAILABLE,
        hint="run `sandbox doctor`, which names what is missing",
    )


def _urls(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        if name.upper().endswith(("_PROXY", "_URL", "_INDEX", "_REGISTRY")) and name.upper() != "NO_PROXY":
            for word in value.split():
                yield word.split("=", 1)[1] if "=" in word.split("://", 1)[0] else word
