"""One file or folder of a sandbox's workspace."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.services import Injected
from sandbox.engine.base import FileInfo
from sandbox.errors import InvalidInput, NotFound

router = APIRouter(prefix="/api/v1/sessions", tags=["files"])

Path = Annotated[str, Query(max_length=4096, description="Relative to /workspace, or absolute")]
Role = Annotated[str | None, Query(max_length=31, description="Which container; default the first")]


def _view(info: FileInfo) -> dict[str, Any]:
    return {
        "path": info.path,
        "type": info.type,
        "size": info.size,
        "mode": f"{info.mode & 0o7777:04o}",
        "modified_at": info.modified_at,
    }


def _sane(path: str) -> str:
    if "\0" in path:
        raise InvalidInput("a path cannot have a NUL", code="path_invalid")
    return path or "."


@router.get("/{session_id}/files")
async def read_file(
    session_id: UUID,
    caller: CurrentCaller,
    services: Injected,
    path: Path = ".",
    role: Role = None,
    depth: Annotated[int, Query(ge=1, le=20, description="How deep to list a folder")] = 1,
) -> Response:
    """A file's raw bytes; a folder's list as JSON `{"items": [{path, type, size, mode, modified_at}]}`."""
    guest, _ = await services.sessions.guest(caller, session_id, role)
    info = await guest.stat(_sane(path))
    if info is None:
        raise NotFound(f"there is no {path}", hint="List the folder: GET …/files?path=.", code="file_not_found")
    if info.type == "directory":
        items = [_view(item) for item in await guest.list_files(path or ".", depth=depth)]
        return JSONResponse({"items": items})
    chunks = await guest.read_file(path)
    # What a sandbox holds is never shown as a page of this origin.
    headers = {"Content-Disposition": "attachment", "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(chunks, media_type="application/octet-stream", headers=headers)


@router.put("/{session_id}/files", status_code=201)
async def write_file(
    session_id: UUID, request: Request, caller: CurrentCaller, services: Injected, path: Path, role: Role = None
) -> dict[str, Any]:
    """Write a file from the raw body, all of it or nothing; missing folders are made."""
    guest, _ = await services.sessions.guest(caller, session_id, role)
    return _view(await guest.write_file(_sane(path), request.stream()))


@router.delete("/{session_id}/files", status_code=204)
async def delete_file(
    session_id: UUID, caller: CurrentCaller, services: Injected, path: Path, role: Role = None
) -> None:
    """Remove a file or a whole folder; gone already is success."""
    guest, _ = await services.sessions.guest(caller, session_id, role)
    await guest.remove(_sane(path))
