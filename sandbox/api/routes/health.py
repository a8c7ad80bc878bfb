"""Liveness and readiness probes. They need no token and reveal no secrets."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Response

from sandbox.api.http.services import Injected
from sandbox.errors import SandboxError

router = APIRouter(tags=["health"])

CHECK_SECONDS = 5.0


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Liveness: the process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "`checks` names what does not answer"}})
async def readyz(services: Injected, response: Response) -> dict[str, Any]:
    """Readiness: the database and the container engine answer; 503 with the cause if one does not."""
    names = ("database", "engine")
    results = await asyncio.gather(
        *(asyncio.wait_for(check(), CHECK_SECONDS) for check in (services.db.ping, services.engine.ping)),
        return_exceptions=True,
    )
    checks = dict(zip(names, map(_check_result, results), strict=True))
    ready = all(result == "ok" for result in checks.values())
    if not ready:
        response.status_code = 503
        response.headers["Retry-After"] = "2"
    return {"status": "ok" if ready else "unavailable", "checks": checks}


def _check_result(result: object) -> str:
    if not isinstance(result, BaseException):
        return "ok"
    if isinstance(result, SandboxError):
        return result.code
    return "timeout" if isinstance(result, TimeoutError) else "error"
