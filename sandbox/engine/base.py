"""The contract of the container engine: `Engine` and its types. The guest agent has its own in `guest.py`.

A resource that is already gone, or that already exists, is a normal result and never an error. The `ensure_*` methods
check before they create, so every call can be repeated after a crash at any point. Implementations translate the
errors of their libraries into `EngineError` and `GuestError`.

All state is in the engine and in the containers. A new process of this service that uses the same deployment id finds
the same containers, processes and output as the one before it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from sandbox.domain.egress import PUBLIC, Egress
from sandbox.engine.guest import Guest
from sandbox.engine.labels import POOL_ROLE, container_name


class ResourceKind(StrEnum):
    CONTAINER = "container"
    NETWORK = "network"
    VOLUME = "volume"


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits of one container."""

    memory_bytes: int
    #: Processor time as a number of cores; fractions are allowed.
    cpus: float
    #: Maximum number of processes and threads.
    pids: int
    #: Most bytes on the workspace's volume, and as many in the rest of the container. 0: no limit.
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything needed to create one role's container. Its name follows from session and role
    (`labels.container_name`)."""

    session_id: UUID
    role: str
    #: Image reference, as returned by `RuntimeImages`.
    image: str
    runtime: str
    #: Name of the network to join. None joins the deployment's shared network, where containers cannot reach each
    #: other.
    network: str | None
    limits: Limits
    env: dict[str, str] = field(default_factory=dict)
    #: Id of the container of the pool that becomes this role's. Its volume stays the role's when it is lost.
    member: UUID | None = None

    @classmethod
    def of_pool(cls, member: UUID, image: str, runtime: str, limits: Limits) -> ContainerSpec:
        """A container that is made before there is a session for it."""
        return cls(member, POOL_ROLE, image, runtime, None, limits)

    @property
    def origin(self) -> tuple[UUID, str]:
        """Session and role in the labels of container and volume; of what comes from the pool, those it had there."""
        return (self.member, POOL_ROLE) if self.member is not None else (self.session_id, self.role)

    @property
    def volume(self) -> str:
        """The name of the `/workspace` volume."""
        return container_name(*self.origin)


@dataclass(frozen=True, slots=True)
class ContainerState:
    """The current state of a container, as reported by the engine."""

    id: str
    name: str
    #: created, running, paused, restarting, exited, dead
    status: str
    #: None unless the container is running.
    ip: str | None
    #: None unless the container has exited.
    exit_code: int | None
    #: Whether the kernel killed a process of the container for lack of memory.
    out_of_memory: bool
    started_at: datetime | None
    session_id: UUID | None
    role: str | None
    #: Whether the container is attached to the network that it was created for.
    connected: bool = True


@dataclass(frozen=True, slots=True)
class Resource:
    """A container, network or volume that carries this deployment's labels."""

    kind: ResourceKind
    name: str
    session_id: UUID | None
    role: str | None
    created_at: datetime | None
    #: Containers only: created, running, paused, restarting, removing, exited, dead.
    status: str | None = None
    #: Containers only.
    id: str | None = None
    #: Containers only: whether it is attached to the network that it was created for.
    connected: bool = True


@dataclass(frozen=True, slots=True)
class Refusal:
    """Attempts of a container to connect to what its egress does not permit."""

    session_id: UUID
    role: str
    address: str
    port: int
    #: tcp or udp
    protocol: str
    attempts: int


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """A state change of one of this deployment's containers, or of a session's network."""

    #: start, die, oom, destroy; pause, unpause; disconnect (a container from its network), network_destroy
    action: str
    session_id: UUID
    #: Empty for a network.
    role: str
    #: Empty for a network.
    container_id: str
    #: Of `die` only.
    exit_code: int | None
    time: datetime


class Engine(Protocol):
    """A container engine, as one deployment uses it.

    No call blocks the event loop. Every call has a deadline and raises EngineError `engine_timeout` after it, or
    `engine_unreachable` if the engine does not answer.
    """

    async def ping(self) -> dict[str, Any]:
        """Return the engine's version and other facts about it."""

    async def ensure_network(self, session_id: UUID, egress: Egress = PUBLIC) -> str:
        """Create the session's own network unless it exists, and return its name.

        When this returns, its containers reach what `egress` permits and nothing else. The `egress` of a network that
        exists does not change.

        Raises:
            EngineError: `egress_unavailable` if `egress` is restricted and this host cannot enforce it,
                `egress_host_unknown` if one of its host names does not resolve.
        """

    async def guard_egress(self) -> bool:
        """Put the rules of what containers may reach in force again. Return False if they were missing.

        Raises EngineError `egress_unavailable` if this host cannot enforce them.
        """

    async def take_refusals(self) -> list[Refusal]:
        """Return the connections that the rules refused since the last call, of any process of this service.

        Attempts of a container that makes very many are not all counted. Raises EngineError `egress_unavailable` if
        this host cannot enforce the rules.
        """

    async def ensure_container(self, spec: ContainerSpec) -> ContainerState:
        """Create the role's container and its `/workspace` volume unless they exist, start it unless it runs, and
        attach it to its network if it was detached.

        The files on the volume of an earlier container of this role stay. The container of the pool that `spec.member`
        names becomes the role's: it has `spec.env` only once `Guest.set_variables` has been called.

        Raises:
            EngineError: `container_mismatch` if a container of this name has another image or other labels,
                `image_missing` if the engine does not have the image, `network_missing` if `spec.network` does not
                exist, `container_contended` if another process keeps changing the container.
            InvalidInput: `env_refused` if `spec.env` sets a variable that the guest agent itself would obey.
        """

    async def fingerprint(self, spec: ContainerSpec) -> str:
        """Return a digest of all that is fixed when a container is created, except whose it is and its environment.

        A container of the pool may become a role's if both have the same.
        """

    async def inspect_container(self, session_id: UUID, role: str) -> ContainerState | None:
        """Return the state of the role's container, or None if it does not exist."""

    async def remove_session(self, session_id: UUID) -> list[Resource]:
        """Remove the session's containers first, then its networks and volumes, and return what was removed.

        What came from the pool, or waits in it, is removed by the id of the pool's container.

        Files of the session are lost. Raises EngineError `removal_refused` or `removal_incomplete` if something
        cannot be removed; the call can be repeated.
        """

    async def remove(self, resource: Resource) -> bool:
        """Remove one resource by name. Return False if it was already gone or belongs to another deployment."""

    async def list_resources(self) -> list[Resource]:
        """Return every container, network and volume that carries this deployment's labels."""

    async def container_logs(self, session_id: UUID, role: str, tail: int = 50) -> str:
        """Return the last `tail` lines that the container's main process printed.

        Useful for diagnosis when the guest agent does not answer. Empty if there is no container.
        """

    def events(self) -> AsyncIterator[EngineEvent]:
        """Return the events of this deployment's containers and sessions' networks from the time of this call on.

        The iterator raises EngineError when the connection to the engine ends. Events that occur while no iterator is
        open are lost, so a caller compares the state itself after it has connected again.
        """

    def port_socket(self, session_id: UUID, role: str, name: str) -> Path:
        """Where this host has a socket of `Guest.port_sockets`, if the engine shares sockets with it. No I/O."""

    def guest(self, session_id: UUID, role: str) -> Guest:
        """Return the client of the guest agent in the role's container. Does no I/O; its first call connects."""
