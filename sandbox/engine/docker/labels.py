"""The names and labels of everything we make on the engine, in one place."""

from __future__ import annotations

from uuid import UUID

SESSION = "sandbox.session_id"
ROLE = "sandbox.role"
DEPLOYMENT = "sandbox.deployment_id"
RUNTIME = "sandbox.runtime"


def container_name(session_id: UUID, role: str) -> str:
    """Also the name of the role's `/workspace` volume."""
    return f"sbx-{session_id.hex}-{role}"


def network_name(session_id: UUID) -> str:
    return f"sbx-{session_id.hex}"


def shared_network_name(deployment_id: UUID) -> str:
    return f"sbx-shared-{deployment_id.hex[:12]}"


def of(deployment_id: UUID, session_id: UUID | None = None, role: str | None = None) -> dict[str, str]:
    labels = {DEPLOYMENT: str(deployment_id)}
    if session_id is not None:
        labels[SESSION] = str(session_id)
    if role is not None:
        labels[ROLE] = role
    return labels
