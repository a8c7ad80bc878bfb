"""SQL of the tables `projects` and `project_archives`. Every function runs in the caller's transaction."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.domain.plan import LaunchPlan, blank_plan
from sandbox.projects.archive import NormalisedProject
from sandbox.projects.project import PlanProblem, Project

_COLUMNS = "user_id, project_id, digest, files, size_bytes, plan, plan_problem, created_at, updated_at"
#: What is stored in the column `plan` of a project whose plan is not known.
_UNKNOWN_PLAN = blank_plan("python312")
#: An archive without references is deleted some time after `created_at`. Updating that time keeps it until the caller
#: has added the reference.
_TOUCH_ARCHIVE = text("UPDATE project_archives SET created_at = NOW() WHERE digest = :digest RETURNING digest")
#: Restarts the time until deletion. If another transaction has locked the row, it updates the time itself, so this one
#: does not wait for it.
_RELEASE_ARCHIVE = text("""
    UPDATE project_archives SET created_at = NOW()
     WHERE digest = (SELECT digest FROM project_archives WHERE digest = :digest FOR UPDATE SKIP LOCKED)
""")
_INSERT_ARCHIVE = text("""
    INSERT INTO project_archives (digest, content) VALUES (:digest, :content)
    ON CONFLICT (digest) DO UPDATE SET created_at = NOW()
""")
#: Bytes of a user's archives, without that of the project that is replaced.
ARCHIVES_OF_USER = text("""
    SELECT coalesce(sum(octet_length(content)), 0) FROM project_archives
     WHERE digest IN (SELECT digest FROM projects WHERE user_id = :user_id AND project_id <> :project_id)
""")
_CURRENT_DIGEST = text("""
    SELECT digest FROM projects WHERE user_id = :user_id AND project_id = :project_id FOR UPDATE
""")
_PUT = text(f"""
    INSERT INTO projects (user_id, project_id, digest, files, size_bytes, plan, plan_problem)
    VALUES (:user_id, :project_id, :digest, :files, :size_bytes, CAST(:plan AS jsonb), CAST(:plan_problem AS jsonb))
    ON CONFLICT (user_id, project_id) DO UPDATE
       SET digest = excluded.digest, files = excluded.files, size_bytes = excluded.size_bytes, plan = excluded.plan,
           plan_problem = excluded.plan_problem,
           updated_at = CASE WHEN projects.digest = excluded.digest THEN projects.updated_at ELSE NOW() END
    RETURNING {_COLUMNS}, xmax = 0 AS created
""")
_OWN = text(f"SELECT {_COLUMNS} FROM projects WHERE user_id = :user_id AND project_id = :project_id")
_NAMED = text(f"SELECT {_COLUMNS} FROM projects WHERE project_id = :project_id ORDER BY user_id LIMIT 2")
_LIST = text(f"""
    SELECT {_COLUMNS} FROM projects
     WHERE (CAST(:user_id AS text) IS NULL OR user_id = :user_id)
       AND (CAST(:time AS timestamp) IS NULL
            OR (created_at, user_id || '/' || project_id) < (CAST(:time AS timestamp), CAST(:key AS text)))
     ORDER BY created_at DESC, user_id || '/' || project_id DESC LIMIT :limit
""")
_DELETE = text("DELETE FROM projects WHERE user_id = :user_id AND project_id = :project_id RETURNING digest")
_CONTENT = text("SELECT content FROM project_archives WHERE digest = :digest")
_PLAN = text("SELECT plan, plan_problem FROM projects WHERE digest = :digest LIMIT 1")


async def has_archive(conn: AsyncConnection, digest: str) -> bool:
    """Return whether an archive is stored. If so, postpone its deletion so that a reference can be added."""
    return (await conn.execute(_TOUCH_ARCHIVE, {"digest": digest})).first() is not None


async def insert_archive(conn: AsyncConnection, digest: str, content: bytes) -> None:
    """Store an archive unless it is stored already."""
    await conn.execute(_INSERT_ARCHIVE, {"digest": digest, "content": content})


async def put(
    conn: AsyncConnection,
    user_id: str,
    project_id: str,
    normalised: NormalisedProject,
    plan: LaunchPlan | PlanProblem,
) -> tuple[Project, bool]:
    """Create or replace a project whose archive is stored. Return it, and whether it is new."""
    name = {"user_id": user_id, "project_id": project_id}
    before = (await conn.execute(_CURRENT_DIGEST, name)).scalar()
    values = {**name, "digest": normalised.digest, "files": normalised.files, "size_bytes": normalised.size_bytes}
    problem = json.dumps(asdict(plan)) if isinstance(plan, PlanProblem) else None
    known = _UNKNOWN_PLAN if isinstance(plan, PlanProblem) else plan
    values |= {"plan": known.model_dump_json(), "plan_problem": problem}
    row = (await conn.execute(_PUT, values)).mappings().one()
    if before is not None and before != normalised.digest:
        await conn.execute(_RELEASE_ARCHIVE, {"digest": before})
    return _project(row), bool(row["created"])


async def find_own(conn: AsyncConnection, user_id: str, project_id: str) -> Project | None:
    """Return a user's project, or None."""
    row = (await conn.execute(_OWN, {"user_id": user_id, "project_id": project_id})).mappings().first()
    return _project(row) if row else None


async def find_named(conn: AsyncConnection, project_id: str) -> list[Project]:
    """Return the projects with this id of any users, at most two."""
    return [_project(row) for row in (await conn.execute(_NAMED, {"project_id": project_id})).mappings()]


async def list_newest(
    conn: AsyncConnection, user_id: str | None, limit: int, before: tuple[datetime, str] | None
) -> list[Project]:
    """Return the projects of one user or of all, newest first, that follow the position `before` (`created_at`,
    `key`)."""
    time, key = before or (None, None)
    rows = await conn.execute(_LIST, {"user_id": user_id, "time": time, "key": key, "limit": limit})
    return [_project(row) for row in rows.mappings()]


async def delete(conn: AsyncConnection, project: Project) -> None:
    """Delete a project if it exists. Its archive is deleted later, if no session or project uses it by then."""
    name = {"user_id": project.user_id, "project_id": project.project_id}
    digest = (await conn.execute(_DELETE, name)).scalar()
    if digest is not None:
        await conn.execute(_RELEASE_ARCHIVE, {"digest": digest})


async def archive_content(conn: AsyncConnection, digest: str) -> bytes | None:
    """Return the bytes of a stored archive, or None."""
    content = (await conn.execute(_CONTENT, {"digest": digest})).scalar()
    return bytes(content) if content is not None else None


async def plan_of(conn: AsyncConnection, digest: str) -> LaunchPlan | None:
    """Return the plan of a project that has this source. None if there is no such project any more, or its plan is not
    known."""
    row = (await conn.execute(_PLAN, {"digest": digest})).mappings().first()
    return _plan(row)[0] if row is not None else None


def _plan(row: RowMapping) -> tuple[LaunchPlan, None] | tuple[None, PlanProblem]:
    """Return the plan of a row, or the problem.

    A replica of the previous release that replaces a project leaves `plan_problem` as it is, so the problem counts only
    beside the plan that is stored with it.
    """
    plan = LaunchPlan.model_validate(row["plan"])
    if row["plan_problem"] is None or plan != _UNKNOWN_PLAN:
        return plan, None
    found = row["plan_problem"]
    return None, PlanProblem(found["code"], found["message"], found["hint"], tuple(found["looked_at"]))


def _project(row: RowMapping) -> Project:
    plan, problem = _plan(row)
    return Project(
        user_id=row["user_id"],
        project_id=row["project_id"],
        digest=row["digest"],
        files=row["files"],
        size_bytes=row["size_bytes"],
        plan=plan,
        plan_problem=problem,
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
