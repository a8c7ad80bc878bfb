"""A stored project."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sandbox.domain.plan import LaunchPlan

PROJECT_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")


#: A plan given in a request: by role, the keys of a table of `sandbox.toml`, or None to leave the role out.
RequestedPlan = Mapping[str, Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class PlanProblem:
    """Why the plan of a stored project is not known, and what was looked at."""

    #: `plan_undetected` or `plan_invalid`.
    code: str
    message: str
    hint: str
    looked_at: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Project:
    """A row of `projects`. `project_id` is unique per user: another user may have a project of the same id.

    Exactly one of `plan` and `plan_problem` is None.
    """

    user_id: str
    project_id: str
    digest: str
    files: int
    size_bytes: int
    plan: LaunchPlan | None
    created_at: datetime
    updated_at: datetime
    plan_problem: PlanProblem | None = None

    @property
    def key(self) -> str:
        """A key that is unique among the projects of all users."""
        return f"{self.user_id}/{self.project_id}"


@dataclass(frozen=True, slots=True)
class ProjectRef:
    """The stored source of a session."""

    digest: str
    runtime_type: str
    #: The secrets to which the environments of its plan refer.
    secrets: frozenset[str] = frozenset()
