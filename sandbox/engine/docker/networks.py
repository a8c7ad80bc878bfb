"""A deployment's networks: one shared bridge without traffic between containers, and one for each session of several
roles."""

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

from sandbox.engine import labels
from sandbox.engine.docker.calls import DockerCalls, EngineConflict
from sandbox.engine.docker.host_network import default_route_mtu, routed_networks
from sandbox.engine.docker.subnets import free_subnets
from sandbox.errors import EngineError, Kind

#: Addresses for the 1,023 ports that a Linux bridge takes at most.
_SHARED_PREFIX = 22
#: A network being made is listed after some 0.1 s; a subnet refused for longer is taken by what is never listed.
_LOOKS_AFTER_A_REFUSAL = 30
_PAUSE_AFTER_A_REFUSAL_SECONDS = 0.1


class DockerNetworks:
    """Makes networks from the configured range; looks first, and lives with others doing the same at the same time."""

    def __init__(self, calls: DockerCalls, deployment_id: UUID, pool: str, prefix: int) -> None:
        self._calls = calls
        self._deployment_id = deployment_id
        self._pool = IPv4Network(pool)
        self._prefix = prefix
        self._shared_is_there = False
        self._making_shared = asyncio.Lock()

    async def ensure_session(self, session_id: UUID) -> str:
        """The session's own bridge, on which its containers find each other by role."""
        name = labels.network_name(session_id)
        if not await self.exists(name):
            await self._make(name, labels.resource_labels(self._deployment_id, session_id), self._prefix, {})
        return name

    async def ensure_shared(self) -> str:
        """The deployment's bridge for sessions of one container, on which no container reaches another."""
        name = labels.shared_network_name(self._deployment_id)
        if self._shared_is_there:
            return name
        async with self._making_shared:
            if not self._shared_is_there and not await self.exists(name):
                prefix = max(_SHARED_PREFIX, min(self._pool.prefixlen + 1, self._prefix))
                options = {"com.docker.network.bridge.enable_icc": "false"}
                await self._make(name, labels.resource_labels(self._deployment_id), prefix, options)
            self._shared_is_there = True
        return name

    def forget_shared(self) -> None:
        """Look again before the next use: somebody removed it."""
        self._shared_is_there = False

    async def exists(self, name: str) -> bool:
        """Whether the engine has this network of ours. EngineError `network_mismatch` if it is somebody else's."""
        # By list, not by inspect: names of networks are not unique to every engine, and then inspect refuses.
        return self._is_among(await self._calls.call(lambda client: client.networks(names=[name])), name)

    def _is_among(self, networks: list[dict[str, Any]], name: str) -> bool:
        same = [network for network in networks if network["Name"] == name]
        if any((network.get("Labels") or {}).get(labels.DEPLOYMENT) != str(self._deployment_id) for network in same):
            raise EngineError(
                f"a network named {name} exists and is not this deployment's",
                code="network_mismatch",
                kind=Kind.CONFLICT,
                hint=f"remove it with `docker network rm {name}` if nothing uses it",
            )
        return bool(same)

    async def _make(self, name: str, marks: dict[str, str], prefix: int, options: dict[str, str]) -> None:
        """Make the network in a free block.

        The engine does not refuse a second network of the same name made at the same moment, but it does refuse a
        subnet that is taken. So everybody who makes this one begins at the same block: all but one are refused, wait
        until the network they lost to can be seen, and find that it is theirs or go on to the next block.
        """
        routed, mtu = await asyncio.to_thread(self._host)
        if mtu is not None:
            options = options | {"com.docker.network.driver.mtu": str(mtu)}
        refusals: Counter[IPv4Network] = Counter()
        while True:
            networks = await self._calls.call(lambda client: client.networks())
            if self._is_among(networks, name):
                return
            unseen = [subnet for subnet, times in refusals.items() if times > _LOOKS_AFTER_A_REFUSAL]
            taken = [*(subnet for network in networks for subnet in _subnets(network)), *routed, *unseen]
            subnet = next(free_subnets(self._pool, prefix, taken, zlib.crc32(name.encode())), None)
            if subnet is None:
                raise EngineError(
                    f"no free /{prefix} subnet is left in {self._pool} ({len(networks)} networks on the engine)",
                    code="subnet_pool_exhausted",
                    hint="set SANDBOX_SUBNET_POOL to a larger range, or end sessions",
                )
            try:
                await self._calls.call(partial(_create, name=name, subnet=subnet, marks=marks, options=options))
            except EngineConflict:
                continue  # made by somebody else since we looked
            except EngineError as error:
                if "overlap" not in error.message:
                    raise
                refusals[subnet] += 1
                await asyncio.sleep(_PAUSE_AFTER_A_REFUSAL_SECONDS)
            else:
                return

    def _host(self) -> tuple[list[IPv4Network], int | None]:
        """What the engine's host routes already and its MTU, as far as the engine is on this host."""
        return (routed_networks(), default_route_mtu()) if self._calls.local else ([], None)


def _create(
    client: docker.APIClient, name: str, subnet: IPv4Network, marks: dict[str, str], options: dict[str, str]
) -> None:
    client.create_network(
        name,
        driver="bridge",
        ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(subnet))]),
        options=options,
        labels=marks,
        check_duplicate=True,
    )


def _subnets(network: dict[str, Any]) -> list[IPv4Network]:
    configs = (network.get("IPAM") or {}).get("Config") or []
    return [IPv4Network(c["Subnet"], strict=False) for c in configs if "." in (c.get("Subnet") or "")]
