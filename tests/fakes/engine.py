"""`FakeEngine`: the engine's contract in memory, and what a test can do to it from outside.

engine = FakeEngine()
engine.fail("ensure_container", EngineError("busy"), times=2)
engine.kill(session_id, "main")          # as `docker kill`; the event and the exit code are as there
engine.go_away()                         # until come_back() every call fails and the event streams end
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sandbox.domain.egress import PUBLIC, Egress
from sandbox.engine.base import ContainerSpec, ContainerState, EngineEvent, Refusal, Resource, ResourceKind
from sandbox.engine.labels import POOL_ROLE, container_name, network_name
from sandbox.errors import EngineError, Kind
from tests.fakes.container import FakeContainer, now
from tests.fakes.errors import ScriptedFailures, engine_unreachable
from tests.fakes.files import FakeFiles
from tests.fakes.guest import FakeGuest

SHARED_NETWORK = "sbx-shared"
IMAGES = frozenset({"fake/python312", "fake/node20", "fake/static"})
KILLED = 137


class FakeEngine:
    """One deployment on an engine of its own. Not thread-safe; belongs to one event loop."""

    def __init__(self, images: frozenset[str] = IMAGES) -> None:
        self._images = images
        self._containers: dict[str, FakeContainer] = {}
        self._networks: dict[str, Resource] = {}
        self._volumes: dict[str, tuple[Resource, FakeFiles]] = {}
        self._guests: dict[tuple[UUID, str], FakeGuest] = {}
        self._failures = ScriptedFailures()
        self._listeners: list[asyncio.Queue[EngineEvent | EngineError]] = []
        self._away = False
        #: Whether the host enforces what containers may reach, and what it has refused.
        self.enforces_egress = True
        self.refusals: list[Refusal] = []
        self._addresses = itertools.count(2)
        #: Every call of the engine and of its guest agents, in order: `ensure_network`, `main.start`, …
        self.calls: list[str] = []
        #: Called before each of them with its name; what it raises, the call raises.
        self.on_call: Callable[[str], None] = lambda _: None

    # What tests do to it.

    def fail(self, call: str, error: EngineError, times: int = 1) -> None:
        """Have the next calls of this method raise the error."""
        self._failures.add(call, error, times)

    def go_away(self) -> None:
        """Answer no call any more. Containers and their guest agents go on."""
        self._away = True
        for queue in self._listeners:
            queue.put_nowait(engine_unreachable("its stream of events ended"))

    def come_back(self) -> None:
        self._away = False

    def kill(
        self, session_id: UUID, role: str, *, exit_code: int = KILLED, out_of_memory: bool = False, silent: bool = False
    ) -> None:
        """End a container from outside; `silent` publishes no event, as one that was missed."""
        container = self._containers[container_name(session_id, role)]
        container.out_of_memory = out_of_memory
        container.stop(exit_code)
        if not silent:
            if out_of_memory:
                self._publish("oom", container, None)
            self._publish("die", container, exit_code)

    def destroy(self, session_id: UUID, role: str, *, silent: bool = False) -> None:
        """Remove a container from outside, by force; its volume stays."""
        container = self._containers.pop(container_name(session_id, role))
        was_running = container.status == "running"
        container.stop(KILLED)
        if not silent:
            if was_running:
                self._publish("die", container, KILLED)
            self._publish("destroy", container, None)

    def replace(self, session_id: UUID, role: str) -> str:
        """Put another running container of the same description in its place; the id of the new one."""
        spec = self._containers[container_name(session_id, role)].spec
        self.destroy(session_id, role, silent=True)
        return self._make(spec).id

    def pause(self, session_id: UUID, role: str, *, silent: bool = False) -> None:
        """Pause a container from outside: nothing in it runs, and its guest agent does not answer."""
        container = self._containers[container_name(session_id, role)]
        container.status = "paused"
        if not silent:
            self._publish("pause", container, None)

    def resume(self, session_id: UUID, role: str, *, silent: bool = False) -> None:
        """Let a paused container go on; its processes are as they were."""
        container = self._containers[container_name(session_id, role)]
        container.status = "running"
        if not silent:
            self._publish("unpause", container, None)

    def reconnect(self, session_id: UUID, role: str) -> None:
        """Attach a container to its network again, from outside."""
        self._containers[container_name(session_id, role)].connected = True

    def disconnect(self, session_id: UUID, role: str, *, silent: bool = False) -> None:
        """Detach a container from its network, from outside."""
        container = self._containers[container_name(session_id, role)]
        container.connected = False
        if not silent:
            self._publish("disconnect", container, None)

    def remove_network(self, session_id: UUID, *, silent: bool = False) -> None:
        """Remove a session's network from outside, by force."""
        removed = self._networks.pop(network_name(session_id))
        for container in self._containers.values():
            if container.spec.session_id == session_id:
                self.disconnect(session_id, container.spec.role, silent=silent)
        if not silent:
            self._send(EngineEvent("network_destroy", session_id, "", "", None, removed.created_at or now()))

    def lose_volume(self, session_id: UUID, role: str) -> None:
        """Remove a volume from outside, whatever uses it."""
        del self._volumes[container_name(session_id, role)]

    def add_volume(self, session_id: UUID, role: str, *, created_at: datetime | None = None) -> str:
        """Make a volume that no launch has recorded; its name."""
        name = container_name(session_id, role)
        made = created_at or now()
        self._volumes[name] = (Resource(ResourceKind.VOLUME, name, session_id, role, made), FakeFiles())
        return name

    def container(self, session_id: UUID, role: str) -> FakeContainer:
        return self._containers[container_name(session_id, role)]

    async def aclose(self) -> None:
        """End all processes and connections."""
        for container in self._containers.values():
            container.stop(KILLED)
        for guest in self._guests.values():
            await guest.aclose()

    # The contract.

    async def ping(self) -> dict[str, Any]:
        await self._enter("ping")
        return {"version": "0.0-fake"}

    async def ensure_network(self, session_id: UUID, egress: Egress = PUBLIC) -> str:
        await self._enter("ensure_network")
        if egress.mode != "all" and not self.enforces_egress:
            raise EngineError("this fake has no rules", code="egress_unavailable", kind=Kind.UNAVAILABLE)
        name = network_name(session_id)
        self._networks.setdefault(name, Resource(ResourceKind.NETWORK, name, session_id, None, now()))
        return name

    async def guard_egress(self) -> bool:
        await self._enter("guard_egress")
        if not self.enforces_egress:
            raise EngineError("this fake has no rules", code="egress_unavailable", kind=Kind.UNAVAILABLE)
        return True

    async def take_refusals(self) -> list[Refusal]:
        await self._enter("take_refusals")
        taken, self.refusals = self.refusals, []
        return taken

    async def ensure_container(self, spec: ContainerSpec) -> ContainerState:
        await self._enter("ensure_container")
        self._take_over(spec)
        container = self._containers.get(container_name(spec.session_id, spec.role))
        if container is None:
            container = self._make(spec)
            self._publish("start", container, None)
        elif differing := _differing(container.spec, spec):
            raise EngineError(
                f"the container {container.name} exists and differs in: {', '.join(differing)}",
                code="container_mismatch",
                kind=Kind.CONFLICT,
                hint="remove the session's containers, then launch again",
            )
        elif container.status == "paused":
            self.resume(spec.session_id, spec.role)
        elif container.status != "running":
            container.start()
            self._publish("start", container, None)
        if not container.connected:
            self._require_network(spec)
            container.connected = True
        return container.state

    def _take_over(self, spec: ContainerSpec) -> None:
        """Make the container of the pool, if it still waits, that of the role."""
        waiting = container_name(spec.member, POOL_ROLE) if spec.member is not None else ""
        if waiting in self._containers and container_name(spec.session_id, spec.role) not in self._containers:
            self._require_network(spec)
            container = self._containers.pop(waiting)
            container.spec = spec
            self._containers[container.name] = container
        found = self._containers.get(container_name(spec.session_id, spec.role))
        if spec.member is not None and found is not None:
            found.spec = replace(found.spec, limits=spec.limits)

    async def fingerprint(self, spec: ContainerSpec) -> str:
        await self._enter("fingerprint")
        return f"{spec.runtime} {spec.image} {spec.limits.cpus} {spec.limits.pids}"

    async def inspect_container(self, session_id: UUID, role: str) -> ContainerState | None:
        await self._enter("inspect_container")
        container = self._containers.get(container_name(session_id, role))
        return container.state if container is not None else None

    async def remove_session(self, session_id: UUID) -> list[Resource]:
        await self._enter("remove_session")
        containers = [one.resource for one in self._containers.values() if one.label == session_id]
        others = [*self._networks.values(), *(resource for resource, _ in self._volumes.values())]
        found = [*containers, *(resource for resource in others if resource.session_id == session_id)]
        for resource in found:
            self._remove(resource)
        return found

    async def remove(self, resource: Resource) -> bool:
        await self._enter("remove")
        return self._remove(resource)

    async def list_resources(self) -> list[Resource]:
        await self._enter("list_resources")
        return self._resources()

    async def container_logs(self, session_id: UUID, role: str, tail: int = 50) -> str:
        await self._enter("container_logs")
        container = self._containers.get(container_name(session_id, role))
        return "\n".join(container.logs.splitlines()[-tail:]) if container is not None else ""

    def events(self) -> AsyncIterator[EngineEvent]:
        queue: asyncio.Queue[EngineEvent | EngineError] = asyncio.Queue()
        self._listeners.append(queue)
        if self._away:
            queue.put_nowait(engine_unreachable("scripted"))
        return self._follow(queue)

    def port_socket(self, session_id: UUID, role: str, name: str) -> Path:
        return Path("/nonexistent") / container_name(session_id, role) / name

    def guest(self, session_id: UUID, role: str) -> FakeGuest:
        """The same object at every call, also before and after the container is there."""

        def running() -> FakeContainer | None:
            container = self._containers.get(container_name(session_id, role))
            return container if container is not None and container.status == "running" else None

        key = (session_id, role)
        if key not in self._guests:
            self._guests[key] = FakeGuest(running, lambda call: self._note(f"{role}.{call}"))
        return self._guests[key]

    async def _follow(self, queue: asyncio.Queue[EngineEvent | EngineError]) -> AsyncIterator[EngineEvent]:
        try:
            while True:
                item = await queue.get()
                if isinstance(item, EngineError):
                    raise item
                yield item
        finally:
            self._listeners.remove(queue)

    async def _enter(self, call: str) -> None:
        self._note(call)
        await asyncio.sleep(0)
        if self._away:
            raise engine_unreachable("scripted")
        self._failures.raise_next(call)

    def _note(self, call: str) -> None:
        self.on_call(call)
        self.calls.append(call)

    def _make(self, spec: ContainerSpec) -> FakeContainer:
        if spec.image not in self._images:
            raise EngineError(
                f"the image is not on the engine: {spec.image}",
                code="image_missing",
                hint="run `sandbox runtimes build`",
            )
        if spec.network is None:
            shared = Resource(ResourceKind.NETWORK, SHARED_NETWORK, None, None, now())
            self._networks.setdefault(SHARED_NETWORK, shared)
        self._require_network(spec)
        name = container_name(spec.session_id, spec.role)
        if spec.volume not in self._volumes:
            volume = Resource(ResourceKind.VOLUME, spec.volume, *spec.origin, now())
            self._volumes[spec.volume] = (volume, FakeFiles())
        address, files = f"10.0.0.{next(self._addresses)}", self._volumes[spec.volume][1]
        container = FakeContainer(spec, address, files, label=spec.origin[0])
        container.start()
        self._containers[name] = container
        return container

    def _require_network(self, spec: ContainerSpec) -> None:
        if spec.network is not None and spec.network not in self._networks:
            raise EngineError(
                f"the network {spec.network} does not exist",
                code="network_missing",
                kind=Kind.CONFLICT,
                hint="launch the session again: its network is made first",
            )

    def _resources(self) -> list[Resource]:
        containers = [container.resource for container in self._containers.values()]
        return [*containers, *self._networks.values(), *(resource for resource, _ in self._volumes.values())]

    def _remove(self, resource: Resource) -> bool:
        if resource.kind is ResourceKind.NETWORK:
            return self._networks.pop(resource.name, None) is not None
        if resource.kind is ResourceKind.VOLUME:
            if any(container.spec.volume == resource.name for container in self._containers.values()):
                raise EngineError(
                    f"the volume {resource.name} is in use",
                    code="removal_refused",
                    kind=Kind.CONFLICT,
                    hint="try again",
                )
            return self._volumes.pop(resource.name, None) is not None
        container = self._containers.get(resource.name)
        if container is None:
            return False
        self.destroy(container.spec.session_id, container.spec.role)
        return True

    def _publish(self, action: str, container: FakeContainer, exit_code: int | None) -> None:
        spec = container.spec
        self._send(EngineEvent(action, spec.session_id, spec.role, container.id, exit_code, now()))

    def _send(self, event: EngineEvent) -> None:
        for queue in self._listeners:
            queue.put_nowait(event)


def _differing(found: ContainerSpec, spec: ContainerSpec) -> list[str]:
    """In what a container that exists is not as it was asked for."""
    same = {
        "image": found.image == spec.image,
        "memory": found.limits.memory_bytes == spec.limits.memory_bytes,
    }
    return [name for name, is_same in same.items() if not is_same]
