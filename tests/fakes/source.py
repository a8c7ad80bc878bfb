"""Projects and images as a launch needs them, without archives of a caller and without builds."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from hashlib import sha256

from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.domain.caller import Caller
from sandbox.domain.plan import LaunchPlan
from sandbox.errors import NotFound, SandboxError
from sandbox.projects.project import ProjectRef, RequestedPlan


class FakeProjects:
    """Stands in for `ProjectService`: what sessions and the stages `plan` and `workspace` call."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._current: dict[str, str] = {}
        self._plans: dict[str, LaunchPlan | SandboxError] = {}
        self._archives: dict[str, bytes] = {}

    async def add(
        self, project_id: str, plan: LaunchPlan | SandboxError, files: Mapping[str, str] | None = None
    ) -> str:
        """Store a project, or replace it; its digest. With an error for a plan, `plan_for` raises it."""
        content = _archive(files or {"main.py": f"# {project_id}"})
        digest = sha256(content).hexdigest()
        self._current[project_id], self._plans[digest], self._archives[digest] = digest, plan, content
        async with self._db.transaction() as conn:
            await conn.execute(
                text("INSERT INTO project_archives (digest, content) VALUES (:digest, '') ON CONFLICT DO NOTHING"),
                {"digest": digest},
            )
        return digest

    async def reference(self, caller: Caller, project_id: str, requested: RequestedPlan | None = None) -> ProjectRef:
        if project_id not in self._current:
            raise NotFound(f"there is no project {project_id}", code="project_not_found")
        digest = self._current[project_id]
        plan = self._plans[digest]
        if isinstance(plan, LaunchPlan):
            return ProjectRef(digest, plan.primary_runtime, frozenset(plan.secrets))
        return ProjectRef(digest, "python312")

    async def plan_for(self, digest: str, requested: RequestedPlan | None = None) -> LaunchPlan:
        plan = self._plans[digest]
        if isinstance(plan, SandboxError):
            raise plan
        return plan

    async def archive(self, digest: str) -> bytes:
        return self._archives[digest]


class FakeImages:
    """Stands in for `RuntimeImages`. A runtime in `missing` has no image until it is built."""

    def __init__(self) -> None:
        self.missing: set[str] = set()
        self.build_error: SandboxError | None = None

    async def reference(self, name: str) -> str | None:
        return None if name in self.missing else f"fake/{name}"

    async def ensure(self, name: str, progress: Callable[[str], None]) -> str:
        if self.build_error is not None:
            raise self.build_error
        progress(f"building {name}")
        self.missing.discard(name)
        return f"fake/{name}"

    def forget(self, name: str) -> None:
        """Nothing is remembered."""


def _archive(files: Mapping[str, str]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content.encode())
            tar.addfile(member, io.BytesIO(content.encode()))
    return target.getvalue()
