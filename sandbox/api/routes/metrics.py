"""`/metrics` for Prometheus. It needs an admin's token: `authorization` in the scrape configuration."""

from __future__ import annotations

from fastapi import APIRouter, Response

from sandbox.api.http.auth import CurrentAdmin
from sandbox.api.http.services import Injected
from sandbox.telemetry.metrics.exposition import CONTENT_TYPE, exposition

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=Response)
async def metrics(_: CurrentAdmin, services: Injected) -> Response:
    """Metrics in Prometheus's text format."""
    body = await exposition(services.db, services.recorder, services.intake.waiting_bytes)
    return Response(body, media_type=CONTENT_TYPE)
