"""Lists and removes resources by their labels. A resource that is already gone counts as removed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from uuid import UUID

import docker

from sandbox.engine import labels
from sandbox.engine.base import Resource, ResourceKind
from sandbox.engine.docker.calls import DockerCalls
from sandbox.engine.docker.errors import EngineConflict, EngineNotFound
from sandbox.engine.docker.states import container_resource, network_resource, volume_resource
from sandbox.errors import EngineError, Kind

_ATTEMPTS = 8
_PAUSE_SECONDS = 0.1
_DEADLINE_SECONDS = 60.0


class DockerRemoval:
    """Finds a deployment's resources by label, so that it also finds those that are missing in the database."""

    def __init__(self, calls: DockerCalls, deployment_id: UUID) -> None:
        self._calls = calls
        self._deployment_id = deployment_id

    async def list_resources(self, session_id: UUID | None = None) -> list[Resource]:
        """Return the resources of the deployment or of one session: containers, then networks, then volumes."""
        label_filter = [
            f"{key}={value}" for key, value in labels.resource_labels(self._deployment_id, session_id).items()
        ]
        containers, networks, volumes = await asyncio.gather(
            self._calls.call(lambda client: client.containers(all=True, filters={"label": label_filter})),
            self._calls.call(lambda client: client.networks(filters={"label": label_filter})),
            self._calls.call(lambda client: client.volumes(filters={"label": label_filter})),
        )
        return [
            *map(container_resource, containers),
            *map(network_resource, networks),
            *map(volume_resource, volumes.get("Volumes") or []),
        ]

    async def remove_session(self, session_id: UUID) -> list[Resource]:
        """Remove everything with the session's label and return what was removed.

        Lists the resources again until none is left, because a call of an interrupted launch may still create some.
        Raises EngineError `removal_incomplete` if new ones keep appearing.
        """
        removed: list[Resource] = []
        for _ in range(_ATTEMPTS):
            left = await self.list_resources(session_id)
            if not left:
                return removed
            containers = [r for r in left if r.kind is ResourceKind.CONTAINER]
            others = [r for r in left if r.kind is not ResourceKind.CONTAINER]
            for batch in (containers, others):
                answers = await asyncio.gather(*(self.remove(resource) for resource in batch))
                removed += [resource for resource, existed in zip(batch, answers, strict=True) if existed]
        raise EngineError(
            f"resources of session {session_id} keep being created again: {', '.join(r.name for r in left)}",
            code="removal_incomplete",
            kind=Kind.CONFLICT,
            hint="another replica may be launching it; removal will be tried again",
        )

    async def remove(self, resource: Resource) -> bool:
        """Remove one resource by kind and name. Return False if it is gone or belongs to another deployment."""
        remove, inspect = {
            ResourceKind.CONTAINER: (_remove_container, _container_labels),
            ResourceKind.NETWORK: (_remove_network, _network_labels),
            ResourceKind.VOLUME: (_remove_volume, _volume_labels),
        }[resource.kind]
        existed = False
        for attempt in range(_ATTEMPTS):
            try:
                found = await self._calls.call(lambda client: inspect(client, resource.name))
                if found.get(labels.DEPLOYMENT) != str(self._deployment_id):
                    return False
                existed = True
                await self._calls.call(lambda client: remove(client, resource.name), deadline_seconds=_DEADLINE_SECONDS)
            except EngineNotFound:
                return existed
            except EngineConflict as error:
                # The resource, or the container that uses the volume, is being removed. That takes a moment.
                conflict = error
                await asyncio.sleep(_PAUSE_SECONDS * (attempt + 1))
            else:
                return True
        raise EngineError(
            f"the {resource.kind} {resource.name} cannot be removed: {conflict.message}",
            code="removal_refused",
            kind=Kind.CONFLICT,
            hint="see what uses it with `docker ps -a`; removal will be tried again",
        )


def _remove_container(client: docker.APIClient, name: str) -> None:
    client.remove_container(name, force=True, v=True)


def _remove_network(client: docker.APIClient, name: str) -> None:
    for network in _networks(client, name):
        for endpoint in client.inspect_network(network["Id"]).get("Containers") or {}:
            with contextlib.suppress(docker.errors.NotFound):
                client.disconnect_container_from_network(endpoint, network["Id"], force=True)
        client.remove_network(network["Id"])


def _remove_volume(client: docker.APIClient, name: str) -> None:
    client.remove_volume(name)


def _container_labels(client: docker.APIClient, name: str) -> dict[str, Any]:
    return client.inspect_container(name)["Config"].get("Labels") or {}


def _network_labels(client: docker.APIClient, name: str) -> dict[str, Any]:
    return _networks(client, name)[0].get("Labels") or {}


def _networks(client: docker.APIClient, name: str) -> list[dict[str, Any]]:
    """Return all networks of exactly this name; an engine may have several. Raises EngineNotFound if there is none."""
    found = [network for network in client.networks(names=[name]) if network["Name"] == name]
    if not found:
        raise EngineNotFound(f"no network named {name}")
    return found


def _volume_labels(client: docker.APIClient, name: str) -> dict[str, Any]:
    return client.inspect_volume(name).get("Labels") or {}
