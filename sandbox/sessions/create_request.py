"""What a caller asks for who creates a session, and the row that is made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any
from uuid import UUID

from sandbox.domain.egress import PUBLIC, Egress
from sandbox.domain.variables import EnvValue, SessionValues, withhold
from sandbox.projects.project import RequestedPlan
from sandbox.secrets.keys import KeyRing


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A request for a new session. Its fields have been validated, its references have not."""

    project_id: str | None = None
    runtime_type: str | None = None
    env: Mapping[str, EnvValue] = field(default_factory=dict, repr=False)
    egress: Egress = PUBLIC
    idle_timeout_seconds: int | None = None
    max_lifetime_seconds: int | None = None
    pipeline_run_id: str | None = None
    agents: Sequence[str] = ()
    #: Roles that replace those of the project's plan.
    plan: RequestedPlan | None = field(default=None, repr=False)
    lessons: bool = True
    #: Memory of each container in MiB; None for the setting's.
    memory_mb: int | None = None

    def digest(self, keys: KeyRing) -> str:
        """Of all fields, to recognise a different request with the same Idempotency-Key.

        If there are variables it is made with a key, because short values could be found out by trying.
        """
        values = asdict(self) | {"env": SessionValues(self.env).to_json()["env"]}
        # The digest of a request without new fields is that of the previous release, so a retry across an update fits.
        if not values["plan"]:
            del values["plan"]
        if self.egress == PUBLIC:
            del values["egress"]
        if self.lessons:
            del values["lessons"]
        if self.memory_mb is None:
            del values["memory_mb"]
        content = json.dumps(values, sort_keys=True).encode()
        return keys.digest(content, "request") if self.env or self.plan else sha256(content).hexdigest()

    def withheld(self) -> tuple[RequestedPlan | None, dict[str, str]]:
        """The requested plan with references in place of the values of its variables, and these values."""
        if not self.plan:
            return None, {}
        plan: dict[str, Mapping[str, Any] | None] = {}
        values: dict[str, str] = {}
        for role, table in self.plan.items():
            plan[role] = table
            if table is not None and table.get("env"):
                env, given = withhold(role, table["env"])
                plan[role] = {**table, "env": env}
                values |= given
        return plan, values


@dataclass(frozen=True, slots=True)
class NewSession:
    """The values of a new session's row."""

    session_id: UUID
    user_id: str
    project_id: str | None
    project_digest: str | None
    runtime_type: str
    #: The encrypted values of its environment.
    sealed: bytes | None = field(repr=False)
    agents: Sequence[str]
    requested_plan: RequestedPlan | None
    pipeline_run_id: str | None
    idle_timeout_seconds: int
    max_lifetime_seconds: int
    idempotency_key: str | None = None
    #: Digest of the request with this key, to recognise a different request with the same key.
    request_digest: str | None = None
    egress: Egress = PUBLIC
    #: Whether lessons may change the plan of its launches.
    lessons: bool = True
    #: Memory of each container in MiB; None for the setting's.
    memory_mb: int | None = None
