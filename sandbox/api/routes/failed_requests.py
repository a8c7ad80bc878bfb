"""`/api/v1/sessions/{session_id}/failed-requests`: errors with which an app has answered requests of its preview."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.services import Injected

router = APIRouter(prefix="/api/v1/sessions", tags=["sessions"])


class FailedRequestView(BaseModel):
    time: datetime
    method: str
    path: str = Field(description="Without the query")
    status: int


class FailedRequestList(BaseModel):
    items: list[FailedRequestView]


@router.get("/{session_id}/failed-requests")
async def failed_requests(session_id: UUID, caller: CurrentCaller, services: Injected) -> FailedRequestList:
    """Requests of the session's previews that an app answered with a status from 400 on: the last fifty of the last
    hour, newest first. They are not stored, and each replica of the service has those of its own edge."""
    await services.sessions.get(caller, session_id)
    found = services.sessions.failed_requests.of(session_id)
    return FailedRequestList(items=[FailedRequestView.model_validate(each, from_attributes=True) for each in found])
