"""What a stored project is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from sandbox.domain.plan import LaunchPlan

PROJECT_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")


@dataclass(frozen=True, slots=True)
class Project:
    """One row of `projects`, as it was when read. `project_id` is the owner's own: another user may have the same."""

    user_id: str
    project_id: str
    digest: str
    files: int
    size_bytes: int
    plan: LaunchPlan
    created_at: datetime
    updated_at: datetime

    @property
    def key(self) -> str:
        """Unique among all projects."""
        return f"{self.user_id}/{self.project_id}"


@dataclass(frozen=True, slots=True)
class ProjectRef:
    """The stored source a session is made of."""

    digest: str
    runtime_type: str
