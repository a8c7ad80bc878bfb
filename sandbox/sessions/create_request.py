"""What a caller asks for who creates a session."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256

from sandbox.domain.egress import PUBLIC, Egress
from sandbox.projects.project import RequestedPlan


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A request for a new session. Its fields have been validated, its references have not."""

    project_id: str | None = None
    runtime_type: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    egress: Egress = PUBLIC
    idle_timeout_seconds: int | None = None
    max_lifetime_seconds: int | None = None
    pipeline_run_id: str | None = None
    agents: Sequence[str] = ()
    #: Roles that replace those of the project's plan.
    plan: RequestedPlan | None = None
    lessons: bool = True
    #: Memory of each container in MiB; None for the setting's.
    memory_mb: int | None = None

    def digest(self) -> str:
        """Of all fields, to recognise a different request with the same Idempotency-Key."""
        values = asdict(self)
        # The digest of a request without new fields is that of the previous release, so a retry across an update fits.
        if not values["plan"]:
            del values["plan"]
        if self.egress == PUBLIC:
            del values["egress"]
        if self.lessons:
            del values["lessons"]
        if self.memory_mb is None:
            del values["memory_mb"]
        return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
