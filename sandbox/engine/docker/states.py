"""Converts the engine's answers into the types of `engine/base.py`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sandbox.engine import labels
from sandbox.engine.base import ContainerState, Resource, ResourceKind


def container_state(found: Mapping[str, Any]) -> ContainerState:
    """Convert the answer of inspecting a container."""
    state, name = found["State"], found["Name"].lstrip("/")
    session_id, role = labels.container_owner(name) or (None, None)
    status = state["Status"]
    networks = (found.get("NetworkSettings") or {}).get("Networks") or {}
    return ContainerState(
        id=found["Id"],
        name=name,
        status=status,
        ip=next((n["IPAddress"] for n in networks.values() if n.get("IPAddress")), None),
        exit_code=state.get("ExitCode") if status in ("exited", "dead") else None,
        out_of_memory=bool(state.get("OOMKilled")),
        started_at=parse_time(state.get("StartedAt")),
        session_id=session_id,
        role=role,
        connected=_connected(found, session_id),
    )


def container_resource(found: Mapping[str, Any]) -> Resource:
    """Convert an entry of a list of containers."""
    name = found["Names"][0].lstrip("/") if found.get("Names") else found["Id"]
    session_id, role = labels.container_owner(name) or (None, None)
    return Resource(
        kind=ResourceKind.CONTAINER,
        name=name,
        session_id=session_id,
        role=role,
        created_at=datetime.fromtimestamp(found["Created"], UTC),
        status=found.get("State"),
        id=found["Id"],
        connected=_connected(found, session_id),
    )


def _connected(found: Mapping[str, Any], session_id: UUID | None) -> bool:
    """Whether a container, inspected or listed, is attached to its session's network or the one it was created for.

    A container that is not running is attached when it is started, and the engine lists its network all the same.
    """
    networks = (found.get("NetworkSettings") or {}).get("Networks") or {}
    mode = (found.get("HostConfig") or {}).get("NetworkMode", "")
    own = session_id is not None and labels.network_name(session_id) in networks
    return own or mode in ("", "none", "host", "default") or mode in networks


def network_resource(found: Mapping[str, Any]) -> Resource:
    """Convert an entry of a list of networks."""
    return _resource(ResourceKind.NETWORK, found["Name"], found.get("Labels"), parse_time(found.get("Created")))


def volume_resource(found: Mapping[str, Any]) -> Resource:
    """Convert an entry of a list of volumes."""
    return _resource(ResourceKind.VOLUME, found["Name"], found.get("Labels"), parse_time(found.get("CreatedAt")))


def parse_time(text: str | None) -> datetime | None:
    """Parse the engine's time. Its zero time, `0001-01-01T00:00:00Z`, means "not yet" and gives None."""
    if not text or text.startswith("0001-"):
        return None
    return datetime.fromisoformat(text).astimezone(UTC)


def session_of(found_labels: Mapping[str, str] | None) -> UUID | None:
    """Return the session id in a resource's labels, or None if there is no valid one."""
    try:
        return UUID((found_labels or {})[labels.SESSION])
    except (KeyError, ValueError):
        return None


def _resource(
    kind: ResourceKind, name: str, found_labels: Mapping[str, str] | None, created_at: datetime | None
) -> Resource:
    role = (found_labels or {}).get(labels.ROLE)
    return Resource(kind=kind, name=name, session_id=session_of(found_labels), role=role, created_at=created_at)
