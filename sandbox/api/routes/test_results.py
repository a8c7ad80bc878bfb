"""`/api/v1/test-results`: results of test runs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field, model_validator

from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.pages import Page
from sandbox.api.http.record_models import (
    Body,
    Int,
    LongText,
    Name,
    RecordId,
    Time,
    TimedQuery,
    View,
    Writable,
    answer_page,
)
from sandbox.api.http.services import Injected
from sandbox.api.http.uploads import received_report, store_report
from sandbox.errors import NotFound
from sandbox.records import store
from sandbox.records.reports.junit import read_junit

router = APIRouter(prefix="/api/v1/test-results", tags=["test results"])

TestType = Literal["unit", "integration", "security", "performance", "regression", "uat", "load", "smoke", "e2e"]
Status = Literal["completed", "failed", "running", "cancelled"]
Environment = Literal["local", "docker", "ci", "staging", "prod"]
Commit = Annotated[str, Field(max_length=40), Writable]


class FailedTest(Body):
    """One test that failed, in the documented shape."""

    name: Annotated[str, Field(max_length=1_000), Writable]
    error: LongText = ""
    file: Annotated[str, Field(max_length=1_000), Writable] | None = None
    line: Int | None = None
    stack_trace: LongText | None = None


class WarningDetail(Body):
    """One warning, in the documented shape."""

    message: LongText
    file: Annotated[str, Field(max_length=1_000), Writable] | None = None
    line: Int | None = None


class NewTestResult(Body):
    """One test run."""

    test_type: TestType
    status: Status
    timestamp: Time | None = Field(None, description="Default now")
    total_tests: Int = 0
    passed: Int = 0
    failed: Int = 0
    skipped: Int = 0
    warnings: Int = 0
    execution_time: float = Field(0.0, ge=0, allow_inf_nan=False, description="Seconds")
    failed_tests: Annotated[list[FailedTest], Field(max_length=1_000)] = Field(default_factory=list)
    warning_details: Annotated[list[WarningDetail], Field(max_length=1_000)] = Field(default_factory=list)
    test_output: LongText | None = None
    triggered_by: Name = "manual"
    environment: Environment = "local"
    branch_name: Name | None = None
    commit_hash: Commit | None = None

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.total_tests < self.passed + self.failed + self.skipped:
            raise ValueError("total_tests is less than passed + failed + skipped")
        return self


class TestResultView(View):
    test_id: int
    test_type: TestType
    status: Status
    timestamp: datetime | None
    total_tests: int
    passed: int
    failed: int
    skipped: int
    warnings: int
    execution_time: float
    failed_tests: Any
    warning_details: Any
    test_output: str | None
    triggered_by: str | None
    environment: str | None
    branch_name: str | None
    commit_hash: str | None


class TestResultQuery(TimedQuery):
    test_type: TestType | None = None
    status: Status | None = None


class ReportQuery(Body):
    """Facts about a test run that its report does not contain."""

    test_type: TestType = "unit"
    triggered_by: Name = "manual"
    environment: Environment = "local"
    branch_name: Name | None = None
    commit_hash: Commit | None = None


_BINARY = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "required": ["report"], "properties": {"report": _BINARY, "output": _BINARY}}
_REPORT = {
    "requestBody": {
        "required": True,
        "content": {"application/xml": {"schema": {"type": "string"}}, "multipart/form-data": {"schema": _FORM}},
    }
}


@router.post("/junit", status_code=201, openapi_extra=_REPORT)
async def add_junit_report(
    request: Request, caller: CurrentCaller, services: Injected, query: Annotated[ReportQuery, Query()]
) -> TestResultView:
    """Store a test run from its JUnit XML report (pytest, Jest, Maven, Go, …), compressed with gzip or not.

    Warnings are extracted from the output of tests in the report. Most tools print warnings without adding them to the
    report, so a form may have the report as `report` and the printed output as `output`
    (`curl -F report=@junit.xml -F output=@console.log`). The start time in the report, if any, is the time of the run.
    """
    async with received_report(request, services.settings.max_intake_mb * 1024 * 1024) as upload:
        values = await services.reports.read(caller.user_id, upload, read_junit, ("report", "output"))
    values |= query.model_dump(exclude_none=True)
    (row,) = await store_report(services, caller, store.TEST_RESULTS, [values])
    return TestResultView.model_validate(row)


@router.get("")
async def list_test_results(
    _: CurrentCaller, services: Injected, query: Annotated[TestResultQuery, Query()]
) -> Page[TestResultView]:
    """Test runs, newest first."""
    return Page.model_validate(await answer_page(store.TEST_RESULTS, services.db, query))


@router.get("/{test_id}")
async def get_test_result(test_id: Annotated[RecordId, Path()], _: CurrentCaller, services: Injected) -> TestResultView:
    """One test run."""
    row = await store.TEST_RESULTS.one(services.db, {"test_id": test_id})
    if row is None:
        raise NotFound(f"There is no test result {test_id}.", code="test_result_not_found")
    return TestResultView.model_validate(row)


@router.post("", status_code=201)
async def add_test_result(body: NewTestResult, caller: CurrentCaller, services: Injected) -> TestResultView:
    """Store a test run."""
    values: dict[str, Any] = body.model_dump(exclude_none=True)
    values["failed_tests"] = [test.model_dump(exclude_none=True) for test in body.failed_tests]
    values["warning_details"] = [warning.model_dump(exclude_none=True) for warning in body.warning_details]
    (row,) = await store_report(services, caller, store.TEST_RESULTS, [values])
    return TestResultView.model_validate(row)
