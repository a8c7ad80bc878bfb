"""Names and labels of the containers, networks and volumes that this service creates on a container engine."""

from __future__ import annotations

from uuid import UUID

SESSION = "sandbox.session_id"
ROLE = "sandbox.role"
DEPLOYMENT = "sandbox.deployment_id"
RUNTIME = "sandbox.runtime"
#: Of a network: what its containers may reach, as JSON. See `domain/egress.py`.
EGRESS = "sandbox.egress"

#: Stands for the role in the name of a container that waits in the pool. No role of a session can have this name.
POOL_ROLE = "_pool"


def container_name(session_id: UUID, role: str) -> str:
    """Return the name of a role's container, which is also the name of its `/workspace` volume."""
    return f"sbx-{session_id.hex}-{role}"


def container_owner(name: str) -> tuple[UUID, str] | None:
    """Return session and role of the container with this name, or None if it is no such name.

    The name says whose a container is, because its labels cannot be changed: one of the pool is renamed when a session
    gets it. Until then this is its own id, with `POOL_ROLE`.
    """
    prefix, _, rest = name.partition("-")
    number, _, role = rest.partition("-")
    try:
        session_id = UUID(number)
    except ValueError:
        return None
    return (session_id, role) if prefix == "sbx" and role and name == container_name(session_id, role) else None


def network_name(session_id: UUID) -> str:
    """Return the name of a session's own network."""
    return f"sbx-{session_id.hex}"


def session_of_network(name: str) -> UUID | None:
    """Return the session whose own network has this name, or None if it is no such name."""
    try:
        session_id = UUID(name.removeprefix("sbx-"))
    except ValueError:
        return None
    return session_id if name == network_name(session_id) else None


def shared_network_name(deployment_id: UUID) -> str:
    """Return the name of the network that the deployment's sessions of a single container share."""
    return f"sbx-shared-{deployment_id.hex[:12]}"


def resource_labels(deployment_id: UUID, session_id: UUID | None = None, role: str | None = None) -> dict[str, str]:
    """Return the labels of a resource of this deployment, and of the session and role it belongs to."""
    labels = {DEPLOYMENT: str(deployment_id)}
    if session_id is not None:
        labels[SESSION] = str(session_id)
    if role is not None:
        labels[ROLE] = role
    return labels
