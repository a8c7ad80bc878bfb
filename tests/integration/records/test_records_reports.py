"""Upload of test and coverage reports over HTTP."""

from __future__ import annotations

import gzip
import json

JUNIT = b"""<testsuite name="pytest" time="2.5" timestamp="2026-11-20T10:00:00+00:00">
<testcase classname="tests.test_api" name="test_ok"/>
<testcase classname="tests.test_api" name="test_auth"><failure message="Expected 200, got 401">E
tests/test_api.py:45: AssertionError</failure></testcase></testsuite>"""
COBERTURA = b"""<coverage><packages><package name="api"><classes><class filename="api/a.py"><lines>
<line number="1" hits="1"/><line number="2" hits="0" branch="true" condition-coverage="50% (1/2)"/></lines></class>
</classes></package></packages></coverage>"""


async def test_a_junit_report_is_a_test_result(ada, admin):
    params = {"test_type": "integration", "environment": "ci", "triggered_by": "github", "branch_name": "main"}
    made = await ada.post("/api/v1/test-results/junit", params=params, content=JUNIT)
    assert made.status_code == 201, made.text
    row = made.json()
    assert (row["test_type"], row["total_tests"], row["passed"], row["failed"]) == ("integration", 2, 1, 1)
    assert (row["environment"], row["triggered_by"], row["branch_name"]) == ("ci", "github", "main")
    assert row["failed_tests"][0] == {
        "name": "test_auth",
        "error": "Expected 200, got 401",
        "file": "tests/test_api.py",
        "line": 45,
        "stack_trace": "E\ntests/test_api.py:45: AssertionError",
    }
    answer = await admin.get("/api/v1/analytics/most-common-test-failures", params={"window": "3650d"})
    assert answer.json()["items"][0]["test_name"] == "test_auth"


async def test_a_coverage_report_is_one_row_per_component(ada):
    made = await ada.post("/api/v1/coverage/cobertura", params={"test_type": "unit"}, content=COBERTURA)
    assert made.status_code == 201, made.text
    (row,) = made.json()["items"]
    assert (row["component"], row["coverage_percent"], row["test_type"]) == ("api", 50, "unit")
    assert (row["branches_covered"], row["branches_total"]) == (1, 2)
    summary = {"covered_lines": 3, "num_statements": 4}
    own = await ada.post("/api/v1/coverage/coverage-py", json={"files": {"a/b/c.py": {"summary": summary}}})
    assert [(item["component"], item["coverage_percent"]) for item in own.json()["items"]] == [("a.b", 75)]
    assert len((await ada.get("/api/v1/coverage", params={"component": "a.b"})).json()["items"]) == 1


async def test_invalid_reports_are_refused(ada):
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]><testsuite name="&a;"/>'
    for path in ("test-results/junit", "coverage/cobertura", "coverage/coverage-py"):
        for content in (bomb, b"", b"nonsense"):
            refused = await ada.post(f"/api/v1/{path}", content=content)
            assert (refused.status_code, refused.json()["code"]) == (422, "report_refused")
        large = await ada.post(f"/api/v1/{path}", content=b" " * (2**24 + 1))
        assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
    assert (await ada.post("/api/v1/test-results/junit", params={"test_type": "odd"}, content=JUNIT)).status_code == 422
    assert (await ada.get("/api/v1/test-results")).json()["items"] == []


async def test_a_run_with_a_thousand_failures_is_listed(ada):
    case = b'<testcase name="a"><failure message="m">' + b"t.py:1: no\n" * 100 + b"</failure></testcase>"
    made = await ada.post("/api/v1/test-results/junit", content=b"<testsuite>" + case * 1_000 + b"</testsuite>")
    assert made.status_code == 201, made.text
    assert len(json.dumps(made.json()["failed_tests"])) > 100_000
    (listed,) = (await ada.get("/api/v1/test-results")).json()["items"]
    assert listed == made.json()


async def test_a_report_may_be_compressed_and_have_console_output(ada):
    packed = await ada.post(
        "/api/v1/test-results/junit", content=gzip.compress(JUNIT), headers={"Content-Encoding": "gzip"}
    )
    assert (packed.status_code, packed.json()["failed"]) == (201, 1)
    bomb = gzip.compress(b" " * (2**24 + 1))
    refused = await ada.post("/api/v1/test-results/junit", content=bomb, headers={"Content-Encoding": "gzip"})
    assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")
    console = b"shop.py:5: DeprecationWarning: old() is deprecated\n2 passed, 3 warnings in 0.1s\n"
    for part in (("junit.xml", JUNIT), (None, JUNIT)):  # as `curl -F report=@junit.xml` and `-F 'report=<junit.xml'`
        made = await ada.post("/api/v1/test-results/junit", files={"report": part, "output": ("console.log", console)})
        assert made.status_code == 201, made.text
        row = made.json()
        assert (row["failed"], row["warnings"], row["test_output"]) == (1, 3, console.decode())
        assert row["warning_details"] == [
            {"message": "DeprecationWarning: old() is deprecated", "file": "shop.py", "line": 5}
        ]
    for form in ({"output": ("a", console)}, dict.fromkeys(("report", "b", "c", "d"), ("a", JUNIT))):
        refused = await ada.post("/api/v1/test-results/junit", files=form)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")
    broken = await ada.post("/api/v1/test-results/junit", content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert (broken.status_code, broken.json()["code"]) == (422, "invalid_input")
