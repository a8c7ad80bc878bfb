"""Reading, writing and deleting a file or folder of a sandbox."""

from __future__ import annotations

import base64
import os
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field

from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.file_names import meant_name, shown_name
from sandbox.api.http.services import Injected
from sandbox.engine.guest import Guest
from sandbox.engine.guest_data import FileInfo
from sandbox.errors import InvalidInput, NotFound

router = APIRouter(prefix="/api/v1/sessions", tags=["files"])

Path = Annotated[str, Query(max_length=4096, description="Relative to /workspace, or absolute")]
Role = Annotated[str | None, Query(max_length=31, description="The role whose container is used; default the first")]


#: Where relative paths begin in a container.
WORKSPACE = "/workspace"


def _view(info: FileInfo) -> dict[str, Any]:
    return {
        "path": shown_name(info.path),
        "type": info.type,
        "size": info.size,
        "mode": f"{info.mode & 0o7777:04o}",
        "modified_at": info.modified_at,
    }


def _valid(path: str) -> str:
    """The path, if a file can have it. Raises InvalidInput."""
    if "\0" in path:
        raise InvalidInput("a path cannot have a NUL", code="path_invalid")
    return meant_name(path) or "."


@router.get("/{session_id}/files")
async def read_file(
    session_id: UUID,
    caller: CurrentCaller,
    services: Injected,
    path: Path = ".",
    role: Role = None,
    depth: Annotated[int, Query(ge=1, le=20, description="Levels of subfolders to list")] = 1,
    cursor: Annotated[str, Query(max_length=6000, description="`next_cursor` of the previous page of a folder")] = "",
) -> Response:
    """The raw bytes of a file, or a folder as JSON `{"items": [{path, type, size, mode, modified_at}], "next_cursor"}`.

    A large folder comes in pages of some hundred entries; `next_cursor` is null in the last one. In names, a byte that
    is not UTF-8 is U+FFFD and its two hexadecimal digits; such a name is accepted everywhere.
    """
    guest, _ = await services.sessions.guest(caller, session_id, role)
    info = await guest.stat(_valid(path))
    if info is None:
        raise NotFound(f"there is no {path}", hint="List the folder: GET …/files?path=.", code="file_not_found")
    if info.type == "directory":
        return JSONResponse(await _page(guest, _valid(path), depth, cursor))
    chunks = await guest.read_file(_valid(path))
    # A browser must never show files of a sandbox as a page of this origin.
    headers = {"Content-Disposition": "attachment", "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(chunks, media_type="application/octet-stream", headers=headers)


@router.get("/{session_id}/files/archive")
async def download_folder(
    session_id: UUID,
    caller: CurrentCaller,
    services: Injected,
    path: Path = ".",
    role: Role = None,
    exclude: Annotated[
        list[Annotated[str, Field(max_length=255)]],
        Query(max_length=100, description="Names of files and folders that are left out, wherever they are"),
    ] = [],  # noqa: B006 - FastAPI copies it
) -> StreamingResponse:
    """A folder with its content as `.tar.gz`, by default the workspace. What cannot be read is left out."""
    session = await services.sessions.get(caller, session_id)
    guest, role = services.sessions.guest_of(session, role)
    pieces = await guest.get_tar(_valid(path), exclude=[meant_name(name) for name in exclude])
    name = f"{session.project_id or session_id.hex[:8]}-{role}.tar.gz"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(pieces, media_type="application/gzip", headers=headers)


async def _page(guest: Guest, folder: str, depth: int, cursor: str) -> dict[str, Any]:
    """A page of a folder's entries. There is a next one unless nothing comes after the last entry."""
    page = await guest.list_files(folder, depth=depth, after=_read_cursor(cursor))
    more = None
    if page:
        after = _position(folder, page[-1].path)
        if await guest.list_files(folder, depth=depth, after=after):
            more = base64.urlsafe_b64encode(os.fsencode(after)).decode()
    return {"items": [_view(item) for item in page], "next_cursor": more}


def _position(folder: str, path: str) -> str:
    """The path relative to the folder. Both are absolute, or relative to the workspace."""
    return os.path.relpath(os.path.join(WORKSPACE, path), os.path.join(WORKSPACE, folder))


def _read_cursor(cursor: str) -> str:
    try:
        return os.fsdecode(base64.b64decode(cursor, altchars=b"-_", validate=True))
    except ValueError:
        raise InvalidInput("cursor: not one that this list gave.", hint="Pass next_cursor on unchanged.") from None


@router.put("/{session_id}/files", status_code=201)
async def write_file(
    session_id: UUID, request: Request, caller: CurrentCaller, services: Injected, path: Path, role: Role = None
) -> dict[str, Any]:
    """Write a file from the raw body, atomically; missing folders are created. Of a link, its target is written."""
    guest, _ = await services.sessions.guest(caller, session_id, role)
    return _view(await guest.write_file(_valid(path), request.stream()))


@router.put("/{session_id}/files/archive", status_code=204)
async def write_files(
    session_id: UUID, request: Request, caller: CurrentCaller, services: Injected, path: Path = ".", role: Role = None
) -> None:
    """Write many files at once: the body is a `.tar` or `.tar.gz`, unpacked into a folder, by default the workspace.

    Files that exist are replaced. An archive with a link, or with a path out of the folder, is refused as a whole.
    """
    guest, _ = await services.sessions.guest(caller, session_id, role)
    await guest.put_tar(_valid(path), request.stream())


@router.delete("/{session_id}/files", status_code=204)
async def delete_file(
    session_id: UUID, caller: CurrentCaller, services: Injected, path: Path, role: Role = None
) -> None:
    """Delete a file or a folder with its content. It is no error if it does not exist."""
    guest, _ = await services.sessions.guest(caller, session_id, role)
    await guest.remove(_valid(path))
