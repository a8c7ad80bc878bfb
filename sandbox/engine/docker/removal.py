"""Listing and removing what carries a deployment's labels. "Gone already" is an answer."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from uuid import UUID

import docker

from sandbox.engine import labels
from sandbox.engine.base import Resource, ResourceKind
from sandbox.engine.docker.calls import DockerCalls, EngineConflict, EngineNotFound
from sandbox.engine.docker.states import container_resource, network_resource, volume_resource
from sandbox.errors import EngineError, Kind

_ATTEMPTS = 8
_PAUSE_SECONDS = 0.1
_DEADLINE_SECONDS = 60.0


class DockerRemoval:
    """By label, so that what no database knows of is found and removed too."""

    def __init__(self, calls: DockerCalls, deployment_id: UUID) -> None:
        self._calls = calls
        self._deployment_id = deployment_id

    async def list_resources(self, session_id: UUID | None = None) -> list[Resource]:
        """Everything of the deployment, or of one of its sessions: containers, then networks, then volumes."""
        marks = [f"{key}={value}" for key, value in labels.resource_labels(self._deployment_id, session_id).items()]
        containers, networks, volumes = await asyncio.gather(
            self._calls.call(lambda client: client.containers(all=True, filters={"label": marks})),
            self._calls.call(lambda client: client.networks(filters={"label": marks})),
            self._calls.call(lambda client: client.volumes(filters={"label": marks})),
        )
        return [
            *map(container_resource, containers),
            *map(network_resource, networks),
            *map(volume_resource, volumes.get("Volumes") or []),
        ]

    async def remove_session(self, session_id: UUID) -> list[Resource]:
        """Everything with the session's label; looks again until nothing is left, for a launch cut short may still
        have had a call under way. EngineError `removal_incomplete` if something keeps coming back."""
        removed: list[Resource] = []
        for _ in range(_ATTEMPTS):
            left = await self.list_resources(session_id)
            if not left:
                return removed
            containers = [r for r in left if r.kind is ResourceKind.CONTAINER]
            others = [r for r in left if r.kind is not ResourceKind.CONTAINER]
            for batch in (containers, others):
                answers = await asyncio.gather(*(self.remove(resource) for resource in batch))
                removed += [resource for resource, was_there in zip(batch, answers, strict=True) if was_there]
        raise EngineError(
            f"resources of session {session_id} keep coming back: {', '.join(r.name for r in left)}",
            code="removal_incomplete",
            kind=Kind.CONFLICT,
            hint="another replica may be launching it; removal will be tried again",
        )

    async def remove(self, resource: Resource) -> bool:
        """One resource by kind and name; False if it is gone, or carries another deployment's label."""
        remove, inspect = {
            ResourceKind.CONTAINER: (_remove_container, _container_labels),
            ResourceKind.NETWORK: (_remove_network, _network_labels),
            ResourceKind.VOLUME: (_remove_volume, _volume_labels),
        }[resource.kind]
        was_there = False
        for attempt in range(_ATTEMPTS):
            try:
                marks = await self._calls.call(lambda client: inspect(client, resource.name))
                if marks.get(labels.DEPLOYMENT) != str(self._deployment_id):
                    return False
                was_there = True
                await self._calls.call(lambda client: remove(client, resource.name), deadline_seconds=_DEADLINE_SECONDS)
            except EngineNotFound:
                return was_there
            except EngineConflict as error:
                # A removal under way, or a volume whose container is on its way out: settled shortly.
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
    """All networks of exactly this name: an engine may have several. Raises if there is none."""
    found = [network for network in client.networks(names=[name]) if network["Name"] == name]
    if not found:
        raise EngineNotFound(f"no network named {name}")
    return found


def _volume_labels(client: docker.APIClient, name: str) -> dict[str, Any]:
    return client.inspect_volume(name).get("Labels") or {}
