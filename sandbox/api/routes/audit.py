"""`/api/v1/audit`: who did what (admin)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field

from sandbox.access.audit import ENTRIES
from sandbox.api.http.auth import CurrentAdmin
from sandbox.api.http.pages import Page
from sandbox.api.http.record_models import TimedQuery, View, answer_page
from sandbox.api.http.services import Injected

router = APIRouter(prefix="/api/v1/audit", tags=["admin"])


class AuditQuery(TimedQuery):
    user_id: str | None = Field(None, max_length=100)
    action: str | None = Field(None, max_length=50, description="Such as `session.create`")
    resource_kind: str | None = Field(None, max_length=50, description="Such as `session`")
    resource: str | None = Field(None, max_length=300, description="The id or name of what it was done to")
    outcome: Literal["succeeded", "refused", "failed"] | None = None


class AuditEntry(View):
    """What one request did."""

    entry_id: int
    time: datetime
    user_id: str
    role: Literal["user", "admin"]
    token_id: UUID | None
    action: str
    resource_kind: str
    resource: str | None
    outcome: Literal["succeeded", "refused", "failed"]
    status: int | None = Field(description="The HTTP status of the answer; null if there was none")
    request_id: str | None
    address: str | None = Field(description="The client's IP address")


@router.get("")
async def list_audit(_: CurrentAdmin, services: Injected, query: Annotated[AuditQuery, Query()]) -> Page[AuditEntry]:
    """Entries, newest first."""
    return Page.model_validate(await answer_page(ENTRIES, services.db, query))
