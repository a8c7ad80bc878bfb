"""Operations on projects, for the API and for launches."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from sandbox.db.connection import Database
from sandbox.db.user_space import require_space
from sandbox.domain.caller import Caller
from sandbox.domain.plan import LaunchPlan
from sandbox.errors import Conflict, InvalidInput, NotFound
from sandbox.projects import store
from sandbox.projects.archive import ArchiveKind
from sandbox.projects.archive_readers import ArchiveLimits
from sandbox.projects.detection.detect import RuntimeRules
from sandbox.projects.preparing import PLAN_LIMITS, UPLOAD_LIMITS, plan_archive, prepare
from sandbox.projects.project import PROJECT_ID, Project, ProjectRef, RequestedPlan
from sandbox.settings import Settings
from sandbox.workers import Workers


class Runtimes(Protocol):
    """The known runtimes. `engine.runtimes.RuntimeCatalog` implements this protocol."""

    def list(self) -> Sequence[RuntimeRules]: ...


class ProjectService:
    """The projects of all users. For a caller who is no admin, other users' projects do not exist. Not thread-safe."""

    def __init__(
        self,
        db: Database,
        catalog: Runtimes,
        settings: Settings,
        workers: Workers,
        *,
        require_room: Callable[[], None] = lambda: None,
    ) -> None:
        """`require_room` raises `disk_low` while there is too little disk space for something new."""
        self._db = db
        self._require_room = require_room
        self._workers = workers
        self._catalog = catalog
        self._limits = ArchiveLimits.of(settings)
        self._bytes_per_user = settings.projects_mb_per_user * 1024 * 1024

    async def put(self, caller: Caller, project_id: str, archive_file: Path, kind: ArchiveKind) -> tuple[Project, bool]:
        """Store the content of an uploaded archive as the caller's project. Return it, and whether it is new.

        An earlier project of the same id is replaced; sessions that use its content are not affected. Uploading the
        same content again changes nothing. A project whose plan is not known is stored with the problem, because a
        launch can be requested with a plan. Raises ArchiveRefused, DiskLow, SandboxError `storage_limit`, or
        InvalidInput for an invalid id. In that case nothing is stored, and an earlier project is not changed.
        """
        self._require_room()
        if not PROJECT_ID.fullmatch(project_id):
            raise InvalidInput(
                "project_id: only letters, digits and . _ - are allowed, at most 255, and no dot at the beginning.",
                hint="Choose another project_id.",
                code="project_id_invalid",
            )
        with tempfile.TemporaryDirectory(prefix="sandbox-upload-") as folder:
            packed = Path(folder) / "project.tar.gz"
            whose = f"user {caller.user_id}"
            arguments = (archive_file, kind, self._limits, packed, self._catalog.list())
            prepared = await self._workers.run(whose, UPLOAD_LIMITS, prepare, *arguments)
            digest = prepared.archive.digest
            async with self._db.transaction() as conn:
                await require_space(
                    conn,
                    "projects",
                    store.ARCHIVES_OF_USER,
                    {"user_id": caller.user_id, "project_id": project_id},
                    added=packed.stat().st_size,
                    limit=0 if caller.is_admin else self._bytes_per_user,
                )
                if not await store.has_archive(conn, digest):
                    await store.insert_archive(conn, digest, await asyncio.to_thread(packed.read_bytes))
                return await store.put(conn, caller.user_id, project_id, prepared.archive, prepared.plan)

    async def get(self, caller: Caller, project_id: str) -> Project:
        """Return the caller's project of this id. For an admin who has none, return that of another user.

        Raises NotFound, or Conflict if several users have a project of the id that an admin requests.
        """
        found = None
        if PROJECT_ID.fullmatch(project_id):
            async with self._db.read() as conn:
                found = await store.find_own(conn, caller.user_id, project_id)
                others = await store.find_named(conn, project_id) if found is None and caller.is_admin else []
            if len(others) > 1:
                raise Conflict(
                    f"several users have a project {project_id!r}",
                    hint="Use a token of the user whose project you mean.",
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
        """Return the caller's projects (for an admin: all), newest first.

        `before` is the position of the previous page's last project, as `created_at` and `key`.
        """
        async with self._db.read() as conn:
            return await store.list_newest(conn, None if caller.is_admin else caller.user_id, limit, before)

    async def delete(self, caller: Caller, project_id: str) -> None:
        """Delete a project.

        Its source is deleted an hour later, or once no session uses it. Raises what `get` raises.
        """
        project = await self.get(caller, project_id)
        async with self._db.transaction() as conn:
            await store.delete(conn, project)

    async def reference(self, caller: Caller, project_id: str, requested: RequestedPlan | None = None) -> ProjectRef:
        """Return the source of a session of this project, which is launched with the `requested` plan if there is one.

        Raises what `get` raises, PlanInvalid if the requested plan is invalid for the project, and InvalidInput if
        there is neither a requested plan nor one of the project.
        """
        project = await self.get(caller, project_id)
        if requested:
            plan = await self.plan_for(project.digest, requested)
            return ProjectRef(project.digest, plan.primary_runtime, frozenset(plan.secrets))
        if project.plan is None:
            raise _unplanned(project)
        return ProjectRef(project.digest, project.plan.primary_runtime, frozenset(project.plan.secrets))

    async def archive(self, digest: str) -> bytes:
        """Return the `.tar.gz` of a stored source. Raises NotFound."""
        async with self._db.read() as conn:
            content = await store.archive_content(conn, digest)
        if content is None:
            raise NotFound(
                f"the source {digest} is no longer stored",
                hint="Upload the project again and start a new session.",
                code="source_not_found",
            )
        return content

    async def plan_for(self, digest: str, requested: RequestedPlan | None = None) -> LaunchPlan:
        """Return the plan of a stored source, even if its project was replaced or deleted, with the roles that were
        `requested` in place of its own.

        Raises what `archive` raises, PlanUndetected and PlanInvalid.
        """
        if not requested:
            async with self._db.read() as conn:
                plan = await store.plan_of(conn, digest)
            if plan is not None:
                return plan
        content = await self.archive(digest)
        with tempfile.TemporaryDirectory(prefix="sandbox-plan-") as folder:
            packed = Path(folder) / "project.tar.gz"
            await asyncio.to_thread(packed.write_bytes, content)
            # Whose project it is is not known here; of one source there is one plan.
            arguments = (packed, self._catalog.list(), requested)
            return await self._workers.run(f"source {digest}", PLAN_LIMITS, plan_archive, *arguments)


def _unplanned(project: Project) -> InvalidInput:
    """Return the error for a launch of a project whose plan is not known."""
    problem = project.plan_problem
    if problem is None:
        raise ValueError("the project has a plan")
    return InvalidInput(problem.message, hint=problem.hint, code=problem.code)
