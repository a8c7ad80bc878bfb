"""`/api/v1/coverage`: test coverage of components."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query, Request
from pydantic import Field, model_validator

from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.pages import Page
from sandbox.api.http.record_models import Body, Int, JsonObject, Name, Percent, Time, TimedQuery, View, answer_page
from sandbox.api.http.services import Injected, Services
from sandbox.api.http.uploads import received_report, store_report
from sandbox.api.routes.test_results import TestType
from sandbox.domain.caller import Caller
from sandbox.records import store
from sandbox.records.reports.coverage import read_cobertura, read_coverage_json

router = APIRouter(prefix="/api/v1/coverage", tags=["coverage"])


class NewCoverage(Body):
    """A coverage measurement of one component."""

    component: Name
    coverage_percent: Percent
    timestamp: Time | None = Field(None, description="Default now")
    lines_covered: Int | None = None
    lines_total: Int | None = None
    branches_covered: Int | None = None
    branches_total: Int | None = None
    test_type: TestType | None = None
    metadata: JsonObject | None = None

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        for covered, total in (
            (self.lines_covered, self.lines_total),
            (self.branches_covered, self.branches_total),
        ):
            if covered is not None and total is not None and covered > total:
                raise ValueError("more is covered than the total")
        return self


class CoverageView(View):
    coverage_id: int
    timestamp: datetime
    component: str
    coverage_percent: float
    lines_covered: int | None
    lines_total: int | None
    branches_covered: int | None
    branches_total: int | None
    test_type: str | None
    metadata: dict[str, Any] | None


class CoverageQuery(TimedQuery):
    component: Name | None = None
    test_type: TestType | None = None


@router.get("")
async def list_coverage(
    _: CurrentCaller, services: Injected, query: Annotated[CoverageQuery, Query()]
) -> Page[CoverageView]:
    """Coverage measurements, newest first."""
    return Page.model_validate(await answer_page(store.COVERAGE, services.db, query))


@router.post("", status_code=201)
async def add_coverage(body: NewCoverage, caller: CurrentCaller, services: Injected) -> CoverageView:
    """Store a coverage measurement."""
    (row,) = await store_report(services, caller, store.COVERAGE, [body.model_dump(exclude_none=True)])
    return CoverageView.model_validate(row)


def _body(media_type: str) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {media_type: {"schema": {"type": "string"}}}}}


@router.post("/cobertura", status_code=201, openapi_extra=_body("application/xml"))
async def add_cobertura_report(
    request: Request, caller: CurrentCaller, services: Injected, test_type: Annotated[TestType | None, Query()] = None
) -> dict[str, list[CoverageView]]:
    """Store the coverage of each package of a Cobertura XML report."""
    return await _add_report(request, caller, services, read_cobertura, test_type)


@router.post("/coverage-py", status_code=201, openapi_extra=_body("application/json"))
async def add_coverage_py_report(
    request: Request, caller: CurrentCaller, services: Injected, test_type: Annotated[TestType | None, Query()] = None
) -> dict[str, list[CoverageView]]:
    """Store the coverage of each folder of a `coverage json` report."""
    return await _add_report(request, caller, services, read_coverage_json, test_type)


async def _add_report(
    request: Request,
    caller: Caller,
    services: Services,
    read: Callable[[bytes], list[dict[str, Any]]],
    test_type: TestType | None,
) -> dict[str, list[CoverageView]]:
    async with received_report(request, services.settings.max_intake_mb * 1024 * 1024) as upload:
        found = await services.reports.read(caller.user_id, upload, read)
    rows = [row | {"test_type": test_type} for row in found]
    stored = await store_report(services, caller, store.COVERAGE, rows)
    return {"items": [CoverageView.model_validate(row) for row in stored]}
