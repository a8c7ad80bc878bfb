"""A stored project."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from sandbox.domain.plan import LaunchPlan

PROJECT_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")


@dataclass(frozen=True, slots=True)
class Project:
    """A row of `projects`. `project_id` is unique per user: another user may have a project of the same id."""

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
        """A key that is unique among the projects of all users."""
        return f"{self.user_id}/{self.project_id}"


@dataclass(frozen=True, slots=True)
class ProjectRef:
    """The stored source of a session."""

    digest: str
    runtime_type: str
