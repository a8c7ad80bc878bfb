"""`/api/v1/projects`: the source code that sessions launch, uploaded as an archive."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, Field

from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.pages import CursorText, Limit, Page
from sandbox.api.http.services import Injected
from sandbox.api.http.uploads import save_body
from sandbox.db.cursors import decode_cursor, next_cursor
from sandbox.domain.plan import RolePlan
from sandbox.errors import Kind, SandboxError
from sandbox.projects.archive import ArchiveKind
from sandbox.projects.project import Project

router = APIRouter(prefix="/api/v1/projects", tags=["projects"])

MIB = 1024 * 1024


class UploadTooLarge(SandboxError):
    """The uploaded archive exceeds the limit."""

    code = "upload_too_large"
    kind = Kind.TOO_LARGE

    def __init__(self, most_mb: int) -> None:
        super().__init__(
            f"the archive is larger than {most_mb} MiB",
            hint="Leave out what can be rebuilt (node_modules, .git, build output), or raise SANDBOX_MAX_UPLOAD_MB.",
        )


class PlanProblemView(BaseModel):
    """Why the plan is not known. The project is stored, and can be launched with a plan in the request."""

    code: str = Field(description="`plan_undetected` or `plan_invalid`")
    message: str
    hint: str
    looked_at: list[str] = Field(description="The files that were read, each with what it lacks for a launch")


class ProjectView(BaseModel):
    project_id: str
    user_id: str
    digest: str = Field(description="Depends on the files only, not on how they were packed")
    files: int
    size_bytes: int = Field(description="Size of the unpacked files")
    plan: dict[str, RolePlan] | None = Field(description="What a launch does for each role; null if it is not known")
    plan_problem: PlanProblemView | None = Field(description="Why the plan is not known; null if it is known")
    created_at: datetime
    updated_at: datetime


def view(project: Project) -> ProjectView:
    problem = project.plan_problem
    return ProjectView(
        project_id=project.project_id,
        user_id=project.user_id,
        digest=project.digest,
        files=project.files,
        size_bytes=project.size_bytes,
        plan=project.plan.roles if project.plan else None,
        plan_problem=PlanProblemView.model_validate(problem, from_attributes=True) if problem else None,
        created_at=project.created_at,
        updated_at=project.updated_at,
    )


@router.put(
    "/{project_id}",
    responses={201: {"model": ProjectView, "description": "The project is new"}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                media_type: {"schema": {"type": "string", "format": "binary"}}
                for media_type in ("application/gzip", "application/zip")
            },
        }
    },
)
async def put_project(
    project_id: str,
    request: Request,
    response: Response,
    caller: CurrentCaller,
    services: Injected,
    content_type: Annotated[str, Header()] = "",
) -> ProjectView:
    """Upload a project as `.tar.gz` or `.zip`: 201 if it is new, 200 if it replaces the one with this id.

    The response has the plan of a launch: from the project's `sandbox.toml`, else detected. If no plan is known, `plan`
    is null, and `plan_problem` says what was looked at and what is missing. A refused upload changes nothing.
    """
    kind = ArchiveKind.of(content_type)
    with tempfile.TemporaryDirectory(prefix="sandbox-upload-") as folder:
        archive = Path(folder) / f"upload.{kind}"
        most_mb = services.settings.max_upload_mb
        await save_body(request, archive, most_mb * MIB, lambda: UploadTooLarge(most_mb))
        project, created = await services.projects.put(caller, project_id, archive, kind)
    response.status_code = 201 if created else 200
    return view(project)


@router.get("")
async def list_projects(
    caller: CurrentCaller, services: Injected, limit: Limit = 100, cursor: CursorText = None
) -> Page[ProjectView]:
    """Projects, newest first. Users see their own, admins all."""
    before = decode_cursor(cursor, str) if cursor is not None else None
    projects = await services.projects.list(caller, limit, before)
    more = next_cursor(projects, limit, lambda project: (project.created_at, project.key))
    return Page(items=[view(project) for project in projects], next_cursor=more)


@router.get("/{project_id}")
async def get_project(project_id: str, caller: CurrentCaller, services: Injected) -> ProjectView:
    """One project."""
    return view(await services.projects.get(caller, project_id))


@router.delete("/{project_id}", status_code=204)
async def delete_project(project_id: str, caller: CurrentCaller, services: Injected) -> None:
    """Delete a project. Its sessions keep running with the source that they have."""
    await services.projects.delete(caller, project_id)
