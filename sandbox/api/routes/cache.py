"""`/api/v1/cache`: dependencies that are kept from earlier launches, on the replica that answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal, cast

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.pages import CursorText, Limit, Page
from sandbox.api.http.services import Injected
from sandbox.db.cursors import decode_cursor, next_cursor
from sandbox.domain.caller import Caller
from sandbox.installs.archives import Kept

router = APIRouter(prefix="/api/v1/cache", tags=["cache"])

Kind = Literal["install", "downloads"]
OfUser = Annotated[str | None, Query(max_length=255, description="Only of this user; for admins")]


class KeptView(BaseModel):
    key: str
    kind: Kind = Field(description="install: what a command added; downloads: packages that were downloaded")
    user_id: str
    project_id: str = Field(description="The project whose launch kept it last")
    role: str
    runtime: str
    command: str
    files: int = Field(description="Files and folders")
    size_bytes: int
    created_at: datetime
    used_at: datetime


class CachePage(Page[KeptView]):
    size_bytes: int = Field(description="Of all that the caller may see")
    limit_bytes: int = Field(description="SANDBOX_INSTALLS_MB; half of it for one user")


class Cleared(BaseModel):
    removed: int
    size_bytes: int


def view(kept: Kept) -> KeptView:
    contents = kept.contents
    return KeptView(
        key=kept.key,
        kind=cast(Kind, contents.kind),
        user_id=kept.owner,
        project_id=contents.project_id,
        role=contents.role,
        runtime=contents.runtime,
        command=contents.command,
        files=contents.files,
        size_bytes=kept.size_bytes,
        created_at=datetime.fromtimestamp(kept.created_at, UTC),
        used_at=_used(kept),
    )


def _used(kept: Kept) -> datetime:
    return datetime.fromtimestamp(kept.used_at, UTC)


def _owner(caller: Caller, user_id: str | None) -> str | None:
    """Whose archives the request is about; None for all users'."""
    return user_id if caller.is_admin else caller.user_id


@router.get("")
async def list_kept(
    caller: CurrentCaller, services: Injected, user_id: OfUser = None, limit: Limit = 100, cursor: CursorText = None
) -> CachePage:
    """Kept installs and downloads, the last used first. Users see their own, admins all."""
    found = await services.installs.entries(_owner(caller, user_id))
    found.sort(key=_position, reverse=True)
    before = decode_cursor(cursor, str) if cursor is not None else None
    page = [kept for kept in found if before is None or _position(kept) < before][:limit]
    return CachePage(
        items=[view(kept) for kept in page],
        next_cursor=next_cursor(page, limit, _position),
        size_bytes=sum(kept.size_bytes for kept in found),
        limit_bytes=services.installs.limit_bytes,
    )


def _position(kept: Kept) -> tuple[datetime, str]:
    return _used(kept), f"{kept.owner}/{kept.key}"


@router.delete("")
async def clear(caller: CurrentCaller, services: Injected, user_id: OfUser = None) -> Cleared:
    """Remove kept installs and downloads: users their own, admins all or those of one user. Launches install again."""
    removed = await services.installs.clear(_owner(caller, user_id))
    return Cleared(removed=len(removed), size_bytes=sum(kept.size_bytes for kept in removed))
