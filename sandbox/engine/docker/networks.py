"""A deployment's networks: a shared one whose containers cannot reach each other, for sessions of one container, and
one for each session of several."""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from functools import partial
from ipaddress import IPv4Network
from typing import Any
from uuid import UUID

import docker
from docker.types import IPAMConfig, IPAMPool

from sandbox.domain.egress import Egress
from sandbox.engine import labels
from sandbox.engine.base import Refusal
from sandbox.engine.docker.calls import DockerCalls
from sandbox.engine.docker.egress import reach_of, resolve
from sandbox.engine.docker.errors import EngineConflict
from sandbox.engine.docker.firewall import Firewall, unavailable
from sandbox.engine.docker.host_network import default_route_mtu, routed_networks
from sandbox.engine.docker.subnets import free_subnets
from sandbox.errors import EngineError, Kind
from sandbox.settings import EgressGuard

#: Enough addresses for the at most 1,023 ports of a Linux bridge.
_SHARED_PREFIX = 22
#: A network that is being created is listed after about 0.1 s. If a subnet is still refused after this many attempts,
#: something that the engine does not list uses it.
_ATTEMPTS_PER_SUBNET = 30
#: How often the engine may refuse a network because one of its name exists, although it lists none.
_MOST_CONFLICTS = 30
_PAUSE_SECONDS = 0.1


class DockerNetworks:
    """Creates networks in the configured address range. Safe to use from several processes on one engine."""

    def __init__(
        self, calls: DockerCalls, deployment_id: UUID, firewall: Firewall, *, pool: str, prefix: int, guard: EgressGuard
    ) -> None:
        self._calls = calls
        self._deployment_id = deployment_id
        self._firewall = firewall
        self._guard = guard
        self._pool = IPv4Network(pool)
        self._prefix = prefix
        self._shared_exists = False
        self._creating_shared = asyncio.Lock()

    async def ensure_session(self, session_id: UUID, egress: Egress) -> str:
        """Create the session's own network unless it exists, and return its name. Role names resolve on it.

        Raises EngineError `egress_unavailable` and `egress_host_unknown`, see `base.Engine`.
        """
        name = labels.network_name(session_id)
        if not await self.exists(name):
            reach = await resolve(egress)
            network_labels = labels.resource_labels(self._deployment_id, session_id) | reach.label()
            await self._create(name, network_labels, self._prefix, {})
        # Also for a network that exists: an earlier attempt may have ended before its rules were in force.
        await self._protect(restricted=egress.mode != "all")
        return name

    async def host_entries(self, name: str) -> list[str]:
        """Return the lines for `/etc/hosts` of the containers on a network; none if it does not exist."""
        networks = await self._calls.call(lambda client: client.networks(names=[name]))
        return next((reach_of(network).host_entries for network in networks if network["Name"] == name), [])

    async def guard_egress(self) -> bool:
        """Put the firewall's rules for all networks in force. Return whether they were there. Raises EngineError."""
        if self._guard == "off":
            raise unavailable("SANDBOX_EGRESS_GUARD is off")
        return await self._calls.call(self._firewall.apply)

    async def take_refusals(self) -> list[Refusal]:
        """Return the connections that the firewall refused since the last call. Raises EngineError."""
        if self._guard == "off":
            raise unavailable("SANDBOX_EGRESS_GUARD is off")
        return await self._calls.call(self._firewall.take_refusals)

    async def _protect(self, *, restricted: bool) -> None:
        """Put the rules in force. If this host cannot, that is an error only where a restriction was requested."""
        try:
            await self.guard_egress()
        except EngineError as error:
            if error.code != "egress_unavailable" or restricted or self._guard == "required":
                raise

    async def ensure_shared(self) -> str:
        """Create the deployment's shared network unless it exists, and return its name."""
        name = labels.shared_network_name(self._deployment_id)
        if self._shared_exists:
            return name
        async with self._creating_shared:
            if not self._shared_exists and not await self.exists(name):
                prefix = max(_SHARED_PREFIX, min(self._pool.prefixlen + 1, self._prefix))
                options = {"com.docker.network.bridge.enable_icc": "false"}
                await self._create(name, labels.resource_labels(self._deployment_id), prefix, options)
            await self._protect(restricted=False)
            self._shared_exists = True
        return name

    async def require(self, name: str) -> None:
        """Raise EngineError `network_missing` unless the engine has this network."""
        if not await self.exists(name):
            raise EngineError(
                f"the network {name} does not exist",
                code="network_missing",
                kind=Kind.CONFLICT,
                hint="launch the session again: its network is created first",
            )

    async def attach(self, container: str, network: str | None, aliases: list[str]) -> None:
        """Attach a running container to the session's network of this name, or to the shared one.

        Raises EngineError `network_missing` if the session's network does not exist.
        """
        if network is None:
            self.forget_shared_network()
            name = await self.ensure_shared()
        else:
            await self.require(network)
            name = network
        try:
            await self._calls.call(lambda client: client.connect_container_to_network(container, name, aliases=aliases))
        except EngineError as error:
            # Another process has attached it meanwhile.
            if "already exists in network" not in error.message:
                raise

    async def leave_shared(self, container: str) -> None:
        """Detach a container that is attached to a network of its session from the shared one."""
        name = labels.shared_network_name(self._deployment_id)
        try:
            await self._calls.call(lambda client: client.disconnect_container_from_network(container, name))
        except EngineError as error:
            if "is not connected" not in error.message:
                raise

    def forget_shared_network(self) -> None:
        """Check whether the shared network exists before its next use, because it may have been removed."""
        self._shared_exists = False

    async def exists(self, name: str) -> bool:
        """Return whether the engine has this network.

        Raises EngineError `network_mismatch` if it carries no label of this deployment.
        """
        # Names of networks need not be unique on the engine. Inspecting an ambiguous name fails, listing does not.
        return self._contains(await self._calls.call(lambda client: client.networks(names=[name])), name)

    def _contains(self, networks: list[dict[str, Any]], name: str) -> bool:
        same = [network for network in networks if network["Name"] == name]
        if any((network.get("Labels") or {}).get(labels.DEPLOYMENT) != str(self._deployment_id) for network in same):
            raise EngineError(
                f"a network named {name} exists and does not belong to this deployment",
                code="network_mismatch",
                kind=Kind.CONFLICT,
                hint=f"remove it with `docker network rm {name}` if nothing uses it",
            )
        return bool(same)

    async def _create(self, name: str, network_labels: dict[str, str], prefix: int, options: dict[str, str]) -> None:
        """Create the network in a free subnet.

        Two processes may create the same network at the same time. The engine does not refuse the second one for its
        name, but it does for a subnet that is in use. So every process begins with the same subnet, which follows from
        the name. All but one are refused and wait until the engine lists the network that got the subnet: it is either
        the one they were to create, or they try the next subnet.
        """
        routed, mtu = await asyncio.to_thread(self._host)
        if mtu is not None:
            options = options | {"com.docker.network.driver.mtu": str(mtu)}
        refusals: Counter[IPv4Network] = Counter()
        conflicts = 0
        while True:
            networks = await self._calls.call(lambda client: client.networks())
            if self._contains(networks, name):
                return
            unlisted = [subnet for subnet, times in refusals.items() if times > _ATTEMPTS_PER_SUBNET]
            used = [*(subnet for network in networks for subnet in _subnets(network)), *routed, *unlisted]
            subnet = next(free_subnets(self._pool, prefix, used, zlib.crc32(name.encode())), None)
            if subnet is None:
                raise EngineError(
                    f"no free /{prefix} subnet is left in {self._pool} ({len(networks)} networks on the engine)",
                    code="subnet_pool_exhausted",
                    hint="set SANDBOX_SUBNET_POOL to a larger range, or end sessions",
                )
            try:
                await self._calls.call(
                    partial(_create_network, name=name, subnet=subnet, network_labels=network_labels, options=options)
                )
            except EngineConflict as error:
                # Another process has created it since the networks were listed.
                conflicts += 1
                if conflicts > _MOST_CONFLICTS:
                    raise EngineError(
                        f"the network {name} is being changed by another process: {error.message}",
                        code="network_contended",
                        kind=Kind.CONFLICT,
                        hint="see `docker network ls`; another replica may be removing the session",
                    ) from error
                await asyncio.sleep(_PAUSE_SECONDS)
            except EngineError as error:
                if "overlap" not in error.message:
                    raise
                refusals[subnet] += 1
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return

    def _host(self) -> tuple[list[IPv4Network], int | None]:
        """Return the routes and the MTU of the engine's host, or nothing if the engine is on another machine."""
        return (routed_networks(), default_route_mtu()) if self._calls.local else ([], None)


def _create_network(
    client: docker.APIClient, name: str, subnet: IPv4Network, network_labels: dict[str, str], options: dict[str, str]
) -> None:
    client.create_network(
        name,
        driver="bridge",
        ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(subnet))]),
        options=options,
        labels=network_labels,
        check_duplicate=True,
    )


def _subnets(network: dict[str, Any]) -> list[IPv4Network]:
    configs = (network.get("IPAM") or {}).get("Config") or []
    return [IPv4Network(c["Subnet"], strict=False) for c in configs if "." in (c.get("Subnet") or "")]
