"""What callers can do with projects, and what a launch needs of them."""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Protocol

from sandbox.db.connection import Database
from sandbox.domain.caller import Caller
from sandbox.domain.plan import LaunchPlan
from sandbox.errors import Conflict, InvalidInput, NotFound
from sandbox.projects import store
from sandbox.projects.archive import ArchiveKind, normalise
from sandbox.projects.archive_readers import ArchiveLimits
from sandbox.projects.detection import RuntimeRules
from sandbox.projects.manifest import make_plan
from sandbox.projects.project import PROJECT_ID, Project, ProjectRef
from sandbox.projects.source import open_source
from sandbox.settings import Settings

#: Archives looked at side by side: each may need a disk's room and a core.
_CONCURRENT_UPLOADS = 4


class Runtimes(Protocol):
    """The runtimes there are; `engine.runtimes.RuntimeCatalog` is one such."""

    def list(self) -> Sequence[RuntimeRules]: ...


class ProjectService:
    """Projects of callers. What is another's does not exist, but for an admin. Used from one event loop."""

    def __init__(self, db: Database, catalog: Runtimes, settings: Settings) -> None:
        self._db = db
        self._catalog = catalog
        self._limits = ArchiveLimits.of(settings)
        self._uploads = asyncio.Semaphore(_CONCURRENT_UPLOADS)

    async def put(self, caller: Caller, project_id: str, archive_file: Path, kind: ArchiveKind) -> tuple[Project, bool]:
        """Store what an uploaded archive holds as the caller's project; returns it, and whether it is new.

        Raises `ArchiveRefused`, `PlanInvalid`, `PlanUndetected`, or InvalidInput for an id that is none; then nothing
        of it is kept and an earlier project of this name is as it was. The same content again changes nothing.
        Sessions made of the earlier content keep it.
        """
        if not PROJECT_ID.fullmatch(project_id):
            raise InvalidInput(
                "project_id: only letters, digits and . _ - are taken, 255 at most, no dot first.",
                hint="Choose another project_id.",
                code="project_id_invalid",
            )
        async with self._uploads:
            with tempfile.TemporaryDirectory(prefix="sandbox-upload-") as folder:
                packed = Path(folder) / "project.tar.gz"
                made = await normalise(archive_file, kind, self._limits, packed)
                plan = await asyncio.to_thread(self._make_plan, packed)
                async with self._db.transaction() as conn:
                    if not await store.has_archive(conn, made.digest):
                        await store.insert_archive(conn, made.digest, await asyncio.to_thread(packed.read_bytes))
                    return await store.put(conn, caller.user_id, project_id, made, plan)

    async def get(self, caller: Caller, project_id: str) -> Project:
        """The caller's project of this name; for an admin that has none, the one of another user.

        Raises NotFound, or Conflict where an admin names a project that several users have.
        """
        found = None
        if PROJECT_ID.fullmatch(project_id):
            async with self._db.read() as conn:
                found = await store.find_own(conn, caller.user_id, project_id)
                others = await store.find_named(conn, project_id) if found is None and caller.is_admin else []
            if len(others) > 1:
                raise Conflict(
                    f"several users have a project {project_id!r}",
                    hint="Use a token of the user whose project is meant.",
                    code="project_ambiguous",
                )
            found = found or next(iter(others), None)
        if found is None:
            raise NotFound(
                f"there is no project {project_id[:100]!r}",
                hint="Upload it: PUT /api/v1/projects/{project_id}; list yours: GET /api/v1/projects.",
                code="project_not_found",
            )
        return found

    async def list(self, caller: Caller, limit: int, before: tuple[datetime, str] | None = None) -> list[Project]:
        """The caller's projects (an admin's: all), newest first, after the place `before` (`created_at`, `key`)."""
        async with self._db.read() as conn:
            return await store.list_newest(conn, None if caller.is_admin else caller.user_id, limit, before)

    async def delete(self, caller: Caller, project_id: str) -> None:
        """Remove a project. Its source stays as long as sessions are made of it, and an hour. Raises as `get` does."""
        project = await self.get(caller, project_id)
        async with self._db.transaction() as conn:
            await store.delete(conn, project)

    async def reference(self, caller: Caller, project_id: str) -> ProjectRef:
        """What a new session of this project is made of. Raises as `get` does."""
        project = await self.get(caller, project_id)
        return ProjectRef(project.digest, project.plan.primary_runtime)

    async def archive(self, digest: str) -> bytes:
        """The `.tar.gz` of a stored source. Raises NotFound."""
        async with self._db.read() as conn:
            content = await store.archive_content(conn, digest)
        if content is None:
            raise NotFound(
                f"the source {digest} is not stored any more",
                hint="Upload the project again and start a new session.",
                code="source_not_found",
            )
        return content

    async def plan_for(self, digest: str) -> LaunchPlan:
        """The plan of a stored source, also when its project was replaced or deleted. Raises as `archive` does."""
        async with self._db.read() as conn:
            plan = await store.plan_of(conn, digest)
        if plan is not None:
            return plan
        content = await self.archive(digest)
        return await asyncio.to_thread(self._make_plan, io.BytesIO(content))

    def _make_plan(self, archive: Path | IO[bytes]) -> LaunchPlan:
        with open_source(archive) as source:
            return make_plan(source, self._catalog.list())
