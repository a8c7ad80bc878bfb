"""The routers of the API."""

from __future__ import annotations

from fastapi import APIRouter

from sandbox.api.routes import (
    agents,
    alert_rules,
    alerts,
    analytics,
    audit,
    cache,
    commands,
    coverage,
    docs,
    documents,
    events,
    failed_requests,
    files,
    health,
    lessons,
    lines,
    logs,
    memory,
    metrics,
    otlp,
    processes,
    projects,
    recovery,
    retention,
    secrets,
    sessions,
    sign_in_links,
    terminal,
    test_results,
    tokens,
    traces,
)


def routers() -> list[APIRouter]:
    """All routers, in the order of the documentation at `/docs`."""
    of_sessions = (sessions, events, lines, commands, processes, failed_requests, files, terminal, recovery)
    modules = (health, tokens, sign_in_links, audit, secrets, projects, cache, *of_sessions, docs)
    return [*(module.router for module in modules), *records_routers()]


def records_routers() -> list[APIRouter]:
    """The routers of the platform's records."""
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
