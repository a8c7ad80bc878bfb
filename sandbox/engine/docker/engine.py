"""The `Engine` contract on a Docker engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from sandbox.domain.egress import PUBLIC, Egress
from sandbox.engine import labels
from sandbox.engine.base import ContainerSpec, ContainerState, EngineEvent, Refusal, Resource, ResourceKind
from sandbox.engine.docker import container_config, events
from sandbox.engine.docker.calls import DockerCalls
from sandbox.engine.docker.errors import EngineConflict, EngineNotFound, is_left_behind
from sandbox.engine.docker.firewall import Firewall, why_not
from sandbox.engine.docker.host_network import has_ipv6
from sandbox.engine.docker.name_service import hide_names, show_names
from sandbox.engine.docker.networks import DockerNetworks
from sandbox.engine.docker.removal import DockerRemoval
from sandbox.engine.docker.socket_folders import SocketFolders
from sandbox.engine.docker.states import container_state
from sandbox.engine.docker.transport import GuestTransport
from sandbox.engine.guest import Guest
from sandbox.engine.guest_client.http import Connector
from sandbox.errors import EngineError, GuestError, Kind
from sandbox.settings import Settings

log = logging.getLogger(__name__)

#: How often `ensure_container` tries again while another process creates or removes the same container.
_ENSURE_ATTEMPTS = 6
_ENSURE_PAUSE_SECONDS = 0.1
_START_DEADLINE_SECONDS = 60.0
#: How long a guest agent may take to end everything that it runs, in a container that the engine has lost.
_LEFT_BEHIND_SECONDS = 5.0


class DockerEngine:
    """Implements `base.Engine` for one deployment. The constructor does no I/O.

    `environment` is set in every container. Variables of the container's own spec override it.
    """

    def __init__(
        self,
        settings: Settings,
        deployment_id: UUID,
        *,
        guest_factory: Callable[[Connector], Guest],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._deployment_id = deployment_id
        self._guest_factory = guest_factory
        self._environment = dict(environment or {})
        self._calls = DockerCalls(settings.docker_host)
        firewall = Firewall(self._calls, deployment_id, self._environment, settings.permitted_networks)
        self._networks = DockerNetworks(
            self._calls,
            deployment_id,
            firewall,
            pool=settings.subnet_pool,
            prefix=settings.subnet_prefix,
            guard=settings.egress_guard,
        )
        self._removal = DockerRemoval(self._calls, deployment_id)
        self._folders = SocketFolders(settings.home)
        self._transport = GuestTransport(settings.agent_transport, self._calls, self._folders, settings.engine_runtime)
        self._guests: dict[tuple[UUID, str], Guest] = {}

    async def aclose(self) -> None:
        """Close the connections to the guest agents and to the engine. Containers go on."""
        await self._close_guests(lambda *_: True)
        await self._calls.aclose()

    async def ping(self) -> dict[str, Any]:
        """Return the engine's version and other facts. Raises EngineError within 5 s if it does not answer."""
        found = await self._calls.call(lambda client: client.version(), deadline_seconds=5.0)
        return {
            "version": found.get("Version"),
            "api_version": found.get("ApiVersion"),
            "os": found.get("Os"),
            "architecture": found.get("Arch"),
            "kernel": found.get("KernelVersion"),
            "components": {c["Name"]: c["Version"] for c in found.get("Components") or []},
        }

    async def ensure_network(self, session_id: UUID, egress: Egress = PUBLIC) -> str:
        """Create the session's own network, in a free subnet of `subnet_pool`, unless it exists; return its name."""
        return await self._networks.ensure_session(session_id, egress)

    async def guard_egress(self) -> bool:
        """Put the firewall's rules for all networks in force again. Return False if they were missing."""
        return await self._networks.guard_egress()

    async def take_refusals(self) -> list[Refusal]:
        """Return the connections of containers that the firewall refused since the last call."""
        return await self._networks.take_refusals()

    async def ensure_container(self, spec: ContainerSpec) -> ContainerState:
        """Create and start the role's container as far as that is not done yet. See `base.Engine` for the errors.

        A container that a crashed attempt has created but not started is started.
        """
        name = labels.container_name(spec.session_id, spec.role)
        refusal = ""
        for attempt in range(_ENSURE_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_ENSURE_PAUSE_SECONDS * attempt)
            if spec.member is not None:
                await self._take_over(name, spec, spec.member)
            found = await self._inspect(name)
            try:
                if found is None:
                    await self._create(name, spec)
                    await self._start(name, spec)
                else:
                    if spec.member is not None:
                        found = await self._give_memory(name, found, spec.limits.memory_bytes)
                    self._check_same(found, spec)
                    if found["State"]["Status"] != "running":
                        await self._revive(name, found["State"]["Status"], spec)
                    elif self._attached(found, spec):
                        return container_state(found)
                found = await self._attach(name, spec)
            except (EngineNotFound, EngineConflict) as error:
                refusal = error.message
                continue  # Another process has created, started or removed it since the inspection: inspect again.
            if found is not None and found["State"]["Status"] != "paused":
                return container_state(found)
            refusal = "it is still paused" if found is not None else "it is gone"
        raise EngineError(
            f"the container {name} is being changed by another process: {refusal}",
            code="container_contended",
            kind=Kind.CONFLICT,
            hint="see `docker ps -a` for its state; another replica may be removing the session",
        )

    async def fingerprint(self, spec: ContainerSpec) -> str:
        """Return a digest of everything that the engine is asked for when the container is created."""
        folder = Path("/") if await self._transport.shares_sockets() else None
        return container_config.fingerprint(spec, **await self._options(spec, folder))

    async def inspect_container(self, session_id: UUID, role: str) -> ContainerState | None:
        """Return the state of the role's container, or None if it does not exist."""
        found = await self._inspect(labels.container_name(session_id, role))
        return container_state(found) if found is not None else None

    async def container_logs(self, session_id: UUID, role: str, tail: int = 50) -> str:
        """Return the last lines that the container's main process printed. Empty if there is no container."""
        name = labels.container_name(session_id, role)
        try:
            printed: bytes = await self._calls.call(lambda client: client.logs(name, tail=tail))
        except EngineNotFound:
            return ""
        return printed.decode(errors="replace")

    async def list_resources(self) -> list[Resource]:
        """Return all resources of this deployment, including the shared network, which belongs to no session."""
        return await self._removal.list_resources()

    async def remove_session(self, session_id: UUID) -> list[Resource]:
        """Remove every resource with the session's label, and the host's folders for its guest agents' sockets."""
        await self._close_guests(lambda session, _: session == session_id)
        removed = await self._removal.remove_session(session_id)
        await asyncio.to_thread(self._folders.remove_session, session_id)
        return removed

    async def remove(self, resource: Resource) -> bool:
        """Remove one resource by name. Return False if it was already gone or is not this deployment's."""
        removed = await self._removal.remove(resource)
        session_id, role = resource.session_id, resource.role
        if resource.kind is ResourceKind.CONTAINER and session_id is not None and role is not None:
            await self._close_guests(lambda *key: key == (session_id, role))
            await asyncio.to_thread(self._folders.remove, session_id, role)
        if resource.name == labels.shared_network_name(self._deployment_id):
            self._networks.forget_shared_network()
        return removed

    def events(self) -> AsyncIterator[EngineEvent]:
        """Return the events of this deployment's containers. The iterator raises EngineError when the stream ends."""
        return events.follow(self._calls, self._deployment_id)

    def port_socket(self, session_id: UUID, role: str, name: str) -> Path:
        """Where this host has a socket of `Guest.port_sockets`, if the engine shares sockets with it."""
        return self._folders.folder(session_id, role) / f"port-{name}.sock"

    def guest(self, session_id: UUID, role: str) -> Guest:
        """Return the client of the role's guest agent. It is the same object until the container is removed."""
        key = (session_id, role)
        if key not in self._guests:
            self._guests[key] = self._guest_factory(self._transport.connector(session_id, role))
        return self._guests[key]

    async def _close_guests(self, of: Callable[[UUID, str], bool]) -> None:
        for key in [key for key in self._guests if of(*key)]:
            await self._guests.pop(key).aclose()

    async def _inspect(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._calls.call(lambda client: client.inspect_container(name))
        except EngineNotFound:
            return None
        return found

    async def _attach(self, name: str, spec: ContainerSpec) -> dict[str, Any] | None:
        """Attach a container that runs to its network, unless it is; the container as inspected after that."""
        found = await self._inspect(name)
        if found is None or found["State"]["Status"] != "running" or self._attached(found, spec):
            return found
        await self._networks.attach(name, spec.network, [spec.role] if spec.network is not None else [])
        if spec.member is not None and spec.network is not None:
            await self._networks.leave_shared(name)
            await self._set_names(found, show_names)
        return await self._inspect(name)

    def _attached(self, found: Mapping[str, Any], spec: ContainerSpec) -> bool:
        """Whether a container is attached to the network of the spec, and not to the shared one beside it."""
        networks = found["NetworkSettings"]["Networks"]
        shared = labels.shared_network_name(self._deployment_id)
        return (spec.network or shared) in networks and (spec.network is None or shared not in networks)

    async def _take_over(self, name: str, spec: ContainerSpec, member: UUID) -> None:
        """Make the container of the pool that of the role. Nothing is left to do if that is done, or if it is gone.

        The name is changed last: once it is the role's, everything is.
        """
        if await self._transport.shares_sockets():
            await asyncio.to_thread(self._folders.link, member, spec.session_id, spec.role)
        waiting = labels.container_name(member, labels.POOL_ROLE)
        with contextlib.suppress(EngineNotFound, EngineConflict):
            await self._calls.call(lambda client: client.rename(waiting, name))
        await self._close_guests(lambda *key: key == (member, labels.POOL_ROLE))

    async def _give_memory(self, name: str, found: dict[str, Any], size: int) -> dict[str, Any]:
        """Let a container of the pool use this many bytes; the container as it is then. Other limits never differ."""
        if found["HostConfig"]["Memory"] == size:
            return found
        await self._calls.call(lambda client: client.update_container(name, mem_limit=size, memswap_limit=size))
        return {**found, "HostConfig": {**found["HostConfig"], "Memory": size}}

    async def _create(self, name: str, spec: ContainerSpec) -> None:
        config = container_config.container_config(spec, **await self._options(spec, await self._guest_folder(spec)))
        try:
            await self._calls.call(lambda client: client.create_container_from_config(config, name))
        except EngineError as error:
            if "bind source path does not exist" in error.message and self._transport.fall_back_to_exec():
                raise EngineConflict(error.message) from error
            raise

    async def _options(self, spec: ContainerSpec, guest_folder: Path | None) -> dict[str, Any]:
        """Return what `container_config` needs beside the spec."""
        return {
            "deployment_id": self._deployment_id,
            "network": spec.network or await self._networks.ensure_shared(),
            "environment": self._environment,
            "guest_folder": guest_folder,
            "oci_runtime": self._settings.engine_runtime,
            "seccomp": self._settings.seccomp,
            # Where sockets are shared, the engine uses this machine's kernel. Another kernel may lack IPv6, and then
            # the engine would refuse the setting.
            "ipv6_loopback": guest_folder is not None and has_ipv6(),
            "host_entries": await self._networks.host_entries(spec.network) if spec.network else [],
        }

    async def _guest_folder(self, spec: ContainerSpec) -> Path | None:
        """Create the host's folder for the guest agent's socket and return it. None if sockets cannot be shared."""
        if not await self._transport.shares_sockets():
            return None
        return await asyncio.to_thread(self._folders.ensure, spec.session_id, spec.role)

    async def _start(self, name: str, spec: ContainerSpec) -> None:
        try:
            await self._calls.call(lambda client: client.start(name), deadline_seconds=_START_DEADLINE_SECONDS)
        except EngineError as error:
            without_network = isinstance(error, EngineNotFound) and "network" in error.message
            if not without_network and not is_left_behind(error):
                raise
            # It was created for a network that is gone, and can join no other one, or the engine was killed while it
            # started it. It is removed so that the next attempt creates a new one. Its files are on the volume.
            if not without_network:
                await self._end_left_behind(spec)
            await self._calls.call(lambda client: client.remove_container(name, force=True))
            if without_network:
                self._networks.forget_shared_network()
                if spec.network is not None:
                    await self._networks.require(spec.network)
            raise EngineConflict(error.message) from error
        # Before the guest agent is asked to run anything.
        if spec.network is None and (found := await self._inspect(name)) is not None:
            await self._set_names(found, hide_names)

    async def _set_names(self, container: Mapping[str, Any], change: Callable[[Mapping[str, Any]], None]) -> None:
        """Hide or show the names that the engine's name server resolves, where the service can set rules."""
        if self._settings.egress_guard == "off" or why_not(self._calls.local):
            return
        if not await self._transport.shares_sockets():  # nor files and namespaces
            return
        try:
            await asyncio.to_thread(change, container)
        except EngineError as error:
            if self._settings.egress_guard == "required":
                raise
            log.warning("%s", error)

    async def _end_left_behind(self, spec: ContainerSpec) -> None:
        """End what runs in a container that the engine has lost, and the container itself.

        No call of the engine ends it. It uses the volume of the container that replaces it.
        """
        guest = self.guest(spec.session_id, spec.role)
        try:
            async with asyncio.timeout(_LEFT_BEHIND_SECONDS):
                await guest.kill_all()
                await guest.stop()
        except (GuestError, TimeoutError) as error:
            log.info("nothing is ended in a container that the engine has lost: %s", error)
        await self._close_guests(lambda *key: key == (spec.session_id, spec.role))
        await asyncio.to_thread(self._folders.remove, spec.session_id, spec.role)

    async def _revive(self, name: str, status: str, spec: ContainerSpec) -> None:
        """Start a container that is not running. One that cannot be started is removed, to be created again."""
        if status == "paused":
            try:
                await self._calls.call(lambda client: client.unpause(name))
            except EngineError as error:
                # A busy engine may still report a container as paused for a moment after it was resumed.
                if "not paused" not in error.message:
                    raise
        elif status in ("dead", "removing"):
            await self._calls.call(lambda client: client.remove_container(name, force=True))
            raise EngineConflict(f"the container {name} was {status}")
        else:
            await self._guest_folder(spec)
            await self._start(name, spec)

    def _check_same(self, found: Mapping[str, Any], spec: ContainerSpec) -> None:
        """Raise EngineError `container_mismatch` unless the container has the labels, image, network and memory of the
        spec."""
        config = found["Config"]
        actual = config.get("Labels") or {}
        expected = labels.resource_labels(self._deployment_id, *spec.origin)
        differing = [key for key, value in expected.items() if actual.get(key) != value]
        if config["Image"] != spec.image:
            differing.append(f"image ({config['Image']}, not {spec.image})")
        shared = labels.shared_network_name(self._deployment_id)
        network = spec.network or shared
        from_pool = spec.member is not None and found["HostConfig"]["NetworkMode"] == shared
        if found["HostConfig"]["NetworkMode"] != network and not from_pool:
            differing.append(f"network ({found['HostConfig']['NetworkMode']}, not {network})")
        if found["HostConfig"]["Memory"] != spec.limits.memory_bytes:
            differing.append(f"memory ({found['HostConfig']['Memory']}, not {spec.limits.memory_bytes})")
        if differing:
            raise EngineError(
                f"the container {found['Name'].lstrip('/')} exists and differs in: {', '.join(differing)}",
                code="container_mismatch",
                kind=Kind.CONFLICT,
                hint="remove the session's containers, then launch again",
            )
