"""The routers of the platform's records."""

from __future__ import annotations

from fastapi import APIRouter

from sandbox.api.routes import (
    agents,
    alert_rules,
    alerts,
    analytics,
    coverage,
    documents,
    lessons,
    logs,
    memory,
    metrics,
    otlp,
    retention,
    test_results,
    traces,
)


def records_routers() -> list[APIRouter]:
    """The routers in the order of the documentation at `/docs`."""
    modules = (
        agents,
        test_results,
        coverage,
        logs,
        traces,
        alerts,
        alert_rules,
        analytics,
        lessons,
        documents,
        memory,
        otlp,
        retention,
        metrics,
    )
    return [module.router for module in modules]
