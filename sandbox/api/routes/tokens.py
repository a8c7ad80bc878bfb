"""`/api/v1/tokens`: create, list and revoke tokens (admin)."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from sandbox.access.tokens import MAX_LIFETIME_SECONDS, USER_ID_PATTERN
from sandbox.api.http.auth import CurrentAdmin, services
from sandbox.api.http.pages import CursorText, Limit, Page
from sandbox.db.cursors import decode_cursor, next_cursor
from sandbox.domain.caller import CallerRole

router = APIRouter(prefix="/api/v1/tokens", tags=["tokens"])


class NewToken(BaseModel):
    model_config = ConfigDict(extra="forbid")

    user_id: str = Field(pattern=USER_ID_PATTERN, description="The user that the token authenticates")
    role: CallerRole = Field(CallerRole.USER, description="`user` sees its own sessions and projects, `admin` all")
    expires_in_seconds: int | None = Field(
        None, ge=1, le=MAX_LIFETIME_SECONDS, description="Without it the token is valid until it is revoked"
    )


class TokenView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    token_id: UUID
    user_id: str
    role: CallerRole
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class MadeToken(BaseModel):
    token_id: UUID
    token: str = Field(description="Shown only here; the service stores its hash")
    user_id: str
    role: CallerRole
    expires_at: datetime | None


@router.post("", status_code=201)
async def create_token(body: NewToken, _: CurrentAdmin, request: Request, response: Response) -> MadeToken:
    """Create a token."""
    made = await services(request).tokens.create(body.user_id, body.role, body.expires_in_seconds)
    record = made.record
    response.headers["Cache-Control"] = "no-store"
    response.headers["Location"] = f"/api/v1/tokens/{record.token_id}"
    return MadeToken(
        token_id=record.token_id,
        token=made.token,
        user_id=record.user_id,
        role=record.role,
        expires_at=record.expires_at,
    )


@router.get("")
async def list_tokens(
    _: CurrentAdmin, request: Request, limit: Limit = 100, cursor: CursorText = None
) -> Page[TokenView]:
    """Tokens, newest first, including expired and revoked ones; without the secret values."""
    before = decode_cursor(cursor, UUID) if cursor is not None else None
    records = await services(request).tokens.list(limit, before)
    return Page(
        items=[TokenView.model_validate(record) for record in records],
        next_cursor=next_cursor(records, limit, lambda record: (record.created_at, str(record.token_id))),
    )


@router.delete("/{token_id}", status_code=204)
async def revoke_token(token_id: UUID, _: CurrentAdmin, request: Request) -> None:
    """Revoke a token. May be repeated."""
    await services(request).tokens.revoke(token_id)
