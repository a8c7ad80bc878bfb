"""`/api/v1/admin/recovery`: compares the database with the engine and repairs differences."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from sandbox.api.http.auth import CurrentAdmin
from sandbox.api.http.services import Injected
from sandbox.sessions.recovery.compare import Action
from sandbox.sessions.recovery.service import Outcome

router = APIRouter(prefix="/api/v1/admin/recovery", tags=["admin"])


class Recover(BaseModel):
    """What to repair; by default everything that differs."""

    model_config = ConfigDict(extra="forbid")

    session_ids: list[UUID] | None = Field(None, max_length=1000, description="Only these sessions and their resources")
    dry_run: bool = Field(False, description="Only report what would be done")


class Recorded(BaseModel):
    status: str
    work: str | None
    user_id: str
    project_id: str | None
    error: dict[str, Any] | None
    containers: dict[str, dict[str, Any]]


class Found(BaseModel):
    kind: Literal["container", "network", "volume"]
    name: str
    role: str | None
    status: str | None


class FindingView(BaseModel):
    """One session, or one stray resource of the engine."""

    session_id: UUID | None
    recorded: Recorded | None = Field(description="The session's row; null for a stray resource")
    found: list[Found] = Field(description="The resources found on the engine")
    differs: list[str] = Field(description="Roles whose containers are not as recorded")
    action: Action = Field(description="What would be done, or was done")
    reason: str
    outcome: Literal["planned", "done", "skipped", "failed"] = Field(
        description="`skipped`: it has changed meanwhile, or its owner has to act; `reason` says so"
    )
    error: str | None


class RecoveryView(BaseModel):
    items: list[FindingView]
    next_cursor: None = None
    dry_run: bool


@router.get("", response_model=RecoveryView)
async def get_recovery(_: CurrentAdmin, services: Injected) -> Any:
    """For every session that is not terminated and every stray resource: what is recorded, what exists, what differs,
    and what would be done. Changes nothing."""
    return _view(await services.recovery.recover(None, dry_run=True), dry_run=True)


@router.post("", response_model=RecoveryView)
async def recover(_: CurrentAdmin, services: Injected, body: Recover | None = None) -> Any:
    """Repair all or some; the response is the same view with the outcomes. Launches it requests run afterwards."""
    request = body or Recover(session_ids=None, dry_run=False)
    ids = set(request.session_ids) if request.session_ids is not None else None
    return _view(await services.recovery.recover(ids, dry_run=request.dry_run), dry_run=request.dry_run)


def _view(outcomes: list[Outcome], *, dry_run: bool) -> dict[str, Any]:
    return {"items": [_item(outcome) for outcome in outcomes], "dry_run": dry_run}


def _item(outcome: Outcome) -> dict[str, Any]:
    finding, session = outcome.finding, outcome.finding.session
    return {
        "session_id": finding.session_id,
        "recorded": session
        and {
            "status": session.status.value,
            "work": session.work and session.work.value,
            "user_id": session.user_id,
            "project_id": session.project_id,
            "error": session.error and session.error.to_json(),
            "containers": {role: info.to_json() for role, info in session.containers.items()},
        },
        "found": [{"kind": r.kind.value, "name": r.name, "role": r.role, "status": r.status} for r in finding.found],
        "differs": list(finding.differs),
        "action": finding.action,
        "reason": finding.reason,
        "outcome": outcome.outcome,
        "error": outcome.error,
    }
