"""`/api/v1/projects`: the sources that sessions are made of."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, Field

from sandbox.api.auth import CurrentCaller
from sandbox.api.pages import CursorText, Limit, Page, decode_cursor, next_cursor
from sandbox.api.services import Injected
from sandbox.domain.plan import RolePlan
from sandbox.errors import Kind, SandboxError
from sandbox.projects.archive import ArchiveKind
from sandbox.projects.project import Project

router = APIRouter(prefix="/api/v1/projects", tags=["projects"])

#: What came in is written to disk a mebibyte at a time, off the event loop.
WRITE_BYTES = 1024 * 1024


class ProjectView(BaseModel):
    """A stored project, and what a launch of it would do."""

    project_id: str
    user_id: str
    digest: str = Field(description="Of the content: the same files give the same digest")
    files: int
    size_bytes: int
    plan: dict[str, RolePlan] = Field(description="By role: runtime, root, install, start, port, health, env")
    created_at: datetime
    updated_at: datetime


def _view(project: Project) -> ProjectView:
    return ProjectView(
        project_id=project.project_id,
        user_id=project.user_id,
        digest=project.digest,
        files=project.files,
        size_bytes=project.size_bytes,
        plan=project.plan.roles,
        created_at=project.created_at,
        updated_at=project.updated_at,
    )


@router.put("/{project_id}", status_code=201, responses={200: {"model": ProjectView, "description": "Replaced"}})
async def put_project(
    project_id: str,
    request: Request,
    response: Response,
    caller: CurrentCaller,
    services: Injected,
    content_type: Annotated[str, Header()] = "",
) -> ProjectView:
    """Store a project from the body, a `.tar.gz` or `.zip` by `Content-Type`; 201 if it is new, 200 if replaced.

    The archive is checked as hostile input: paths and links that lead out of it, devices and bombs are refused and
    nothing is kept. Its plan is what `sandbox.toml` says, or what is detected.
    """
    kind = ArchiveKind.of(content_type)
    with tempfile.TemporaryDirectory(prefix="sandbox-upload-") as folder:
        archive = Path(folder) / "upload"
        await _receive(request, archive, services.settings.max_upload_mb)
        project, created = await services.projects.put(caller, project_id, archive, kind)
    if not created:
        response.status_code = 200
    return _view(project)


async def _receive(request: Request, target: Path, most_mb: int) -> None:
    """Write the body to a file, at most so many MiB of it."""
    most, taken, pending = most_mb * 1024 * 1024, 0, bytearray()
    with await asyncio.to_thread(target.open, "wb") as file:
        async for chunk in request.stream():
            taken += len(chunk)
            if taken > most:
                raise SandboxError(
                    f"the archive is larger than {most_mb} MiB",
                    hint="Leave out what an install makes (node_modules, .venv), or raise SANDBOX_MAX_UPLOAD_MB.",
                    code="archive_too_large",
                    kind=Kind.TOO_LARGE,
                )
            pending += chunk
            if len(pending) >= WRITE_BYTES:
                await asyncio.to_thread(file.write, bytes(pending))
                pending.clear()
        await asyncio.to_thread(file.write, bytes(pending))


@router.get("")
async def list_projects(
    caller: CurrentCaller, services: Injected, limit: Limit = 50, cursor: CursorText = None
) -> Page[ProjectView]:
    """The caller's projects (an admin's: all), newest first."""
    found = await services.projects.list(caller, limit, decode_cursor(cursor))
    more = next_cursor(found, limit, lambda project: (project.created_at, project.key))
    return Page(items=[_view(project) for project in found], next_cursor=more)


@router.get("/{project_id}")
async def get_project(project_id: str, caller: CurrentCaller, services: Injected) -> ProjectView:
    """One project."""
    return _view(await services.projects.get(caller, project_id))


@router.delete("/{project_id}", status_code=204)
async def delete_project(project_id: str, caller: CurrentCaller, services: Injected) -> None:
    """Remove a project. Sessions made of it keep their source."""
    await services.projects.delete(caller, project_id)
