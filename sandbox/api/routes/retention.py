"""`/api/v1/admin/retention`: delete records that are older than the configured retention."""

from __future__ import annotations

from fastapi import APIRouter

from sandbox.api.http.auth import CurrentAdmin
from sandbox.api.http.record_models import Body, View
from sandbox.api.http.services import Injected
from sandbox.records.maintenance import run_retention

router = APIRouter(prefix="/api/v1/admin/retention", tags=["admin"])


class RetentionRun(Body):
    dry_run: bool = False


class StepView(View, from_attributes=True):
    table: str
    action: str
    keep_days: int
    rows: int
    partitions: list[str]
    postponed: bool


class RetentionView(View):
    dry_run: bool
    steps: list[StepView]


@router.post("")
async def run(body: RetentionRun, _: CurrentAdmin, services: Injected) -> RetentionView:
    """Run the retention now. It also runs every few hours, in one replica at a time (409 `retention_running`)."""
    steps = await run_retention(services.db, services.settings, dry_run=body.dry_run)
    return RetentionView(dry_run=body.dry_run, steps=[StepView.model_validate(step) for step in steps])
