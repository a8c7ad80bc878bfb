"""The engine's answers as our plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sandbox.engine import labels
from sandbox.engine.base import ContainerState, Resource, ResourceKind


def container_state(found: Mapping[str, Any]) -> ContainerState:
    """From an inspect of a container."""
    state, marks = found["State"], found["Config"].get("Labels") or {}
    status = state["Status"]
    networks = (found.get("NetworkSettings") or {}).get("Networks") or {}
    return ContainerState(
        id=found["Id"],
        name=found["Name"].lstrip("/"),
        status=status,
        ip=next((n["IPAddress"] for n in networks.values() if n.get("IPAddress")), None),
        exit_code=state.get("ExitCode") if status in ("exited", "dead") else None,
        out_of_memory=bool(state.get("OOMKilled")),
        started_at=moment(state.get("StartedAt")),
        session_id=session_of(marks),
        role=marks.get(labels.ROLE),
    )


def container_resource(found: Mapping[str, Any]) -> Resource:
    """From a list of containers."""
    name = found["Names"][0].lstrip("/") if found.get("Names") else found["Id"]
    made = datetime.fromtimestamp(found["Created"], UTC)
    resource = _resource(ResourceKind.CONTAINER, name, found.get("Labels"), made)
    return replace(resource, status=found.get("State"), id=found["Id"])


def network_resource(found: Mapping[str, Any]) -> Resource:
    """From a list of networks."""
    return _resource(ResourceKind.NETWORK, found["Name"], found.get("Labels"), moment(found.get("Created")))


def volume_resource(found: Mapping[str, Any]) -> Resource:
    """From a list of volumes."""
    return _resource(ResourceKind.VOLUME, found["Name"], found.get("Labels"), moment(found.get("CreatedAt")))


def moment(text: str | None) -> datetime | None:
    """The engine's time, None for its zero time (`0001-01-01T00:00:00Z`: not yet)."""
    if not text or text.startswith("0001-"):
        return None
    return datetime.fromisoformat(text).astimezone(UTC)


def session_of(marks: Mapping[str, str] | None) -> UUID | None:
    """The session a thing is labelled with; None if with none, or with something that is no id."""
    try:
        return UUID((marks or {})[labels.SESSION])
    except (KeyError, ValueError):
        return None


def _resource(kind: ResourceKind, name: str, marks: Mapping[str, str] | None, created_at: datetime | None) -> Resource:
    return Resource(
        kind=kind, name=name, session_id=session_of(marks), role=(marks or {}).get(labels.ROLE), created_at=created_at
    )
