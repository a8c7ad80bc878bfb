"""Liveness and readiness probes. They need no token and reveal no secrets."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Response

from sandbox.api.http.services import Injected
from sandbox.errors import DatabaseFull, SandboxError
from sandbox.records.disk_space import DiskState
from sandbox.statuses import RETRY_AFTER_SECONDS

router = APIRouter(tags=["health"])

CHECK_SECONDS = 5.0


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Liveness: the process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "`checks` names what does not answer"}})
async def readyz(services: Injected, response: Response) -> dict[str, Any]:
    """Readiness: the database and the container engine answer, and the disk is not full; 503 with the cause otherwise.

    With `disk_low` the service is ready: what runs goes on, only nothing new is begun.
    """
    names = ("database", "engine")
    results = await asyncio.gather(
        *(asyncio.wait_for(check(), CHECK_SECONDS) for check in (services.db.ping, services.engine.ping)),
        return_exceptions=True,
    )
    checks = dict(zip(names, map(_check_result, results), strict=True))
    if checks["database"] == "ok" and services.db.is_full:
        checks["database"] = DatabaseFull.code
    ready = all(result == "ok" for result in checks.values()) and services.disk.state is not DiskState.FULL
    checks["disk"] = services.disk.state.code
    if not ready:
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return {"status": "ok" if ready else "unavailable", "checks": checks}


def _check_result(result: object) -> str:
    if not isinstance(result, BaseException):
        return "ok"
    if isinstance(result, SandboxError):
        return result.code
    return "timeout" if isinstance(result, TimeoutError) else "error"
