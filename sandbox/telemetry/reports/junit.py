"""JUnit XML, as pytest, Jest, Maven and Go's converters write it, as one row of `test_results`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree.ElementTree import Element

from sandbox.telemetry.reports.xml import ReportRefused, number, parse
from sandbox.telemetry.rows import clean_text

MAX_DETAILS = 1_000
MAX_OUTPUT = 65_536
_MAX_NAME, _MAX_ERROR, _MAX_STACK = 1_000, 2_000, 16_000

#: `file:line:` at the start of a line, as pytest and Go write the place of a failure.
_PLACE_LINE = re.compile(r"^\s{0,8}([^\s:]{1,300}\.\w{1,5}):([0-9]{1,7}):", re.MULTILINE)
#: `file:line` anywhere, as in the stack traces of JavaScript and Java.
_PLACE = re.compile(r"([\w./\\@+-]{1,300}\.\w{1,5}):([0-9]{1,7})")
#: A warning as Python's `warnings` module prints it.
_WARNING = re.compile(r"^\s{0,8}([^\s:]{1,300}):([0-9]{1,7}): (\w{0,50}Warning: .{1,2000})$", re.MULTILINE)
_FAILURES = ("failure", "error")


def read_junit(content: bytes) -> dict[str, Any]:
    """The columns of `test_results` that the report tells of.

    `status` is `completed`: the run came to its end, whatever its tests say. A test that both failed and broke counts
    once. Raises ReportRefused.
    """
    root = parse(content, "JUnit report")
    if root.tag not in ("testsuites", "testsuite"):
        raise ReportRefused(
            f"A JUnit report begins with testsuites or testsuite, not {clean_text(root.tag, 50)}.",
            hint="Send the file of `pytest --junitxml`, jest-junit, Surefire or go-junit-report.",
        )
    suites = [root] if root.tag == "testsuite" else root.findall("testsuite")
    failed, total, skipped = list[dict[str, Any]](), 0, 0
    broken = 0
    for case in root.iter("testcase"):
        total += 1
        failure = next((case.find(tag) for tag in _FAILURES if case.find(tag) is not None), None)
        if failure is not None:
            broken += 1
            if len(failed) < MAX_DETAILS:
                failed.append(_failed_test(case, failure))
        elif case.find("skipped") is not None:
            skipped += 1
    output = "\n".join(_outputs(root))
    warnings = [
        {"message": clean_text(match[3], _MAX_ERROR), "file": clean_text(match[1], _MAX_NAME), "line": int(match[2])}
        for match in _WARNING.finditer(output)
    ]
    return {
        "status": "completed",
        "timestamp": _began(suites),
        "total_tests": total,
        "passed": total - broken - skipped,
        "failed": broken,
        "skipped": skipped,
        "warnings": len(warnings),
        "execution_time": _seconds(root, suites),
        "failed_tests": failed,
        "warning_details": warnings[:MAX_DETAILS],
        "test_output": clean_text(output, MAX_OUTPUT) if output else None,
    }


def _failed_test(case: Element, failure: Element) -> dict[str, Any]:
    stack = (failure.text or "").strip()
    error = (failure.get("message") or "").strip() or stack.partition("\n")[0] or failure.get("type") or failure.tag
    file, line = _place(case, stack)
    test: dict[str, Any] = {
        "name": clean_text(case.get("name") or case.get("classname") or "unnamed", _MAX_NAME),
        "error": clean_text(error, _MAX_ERROR),
    }
    if file:
        test["file"] = clean_text(file, _MAX_NAME)
    if line is not None:
        test["line"] = line
    if stack:
        test["stack_trace"] = clean_text(stack, _MAX_STACK)
    return test


def _place(case: Element, stack: str) -> tuple[str | None, int | None]:
    """Where it failed: the stack knows best, then the test itself."""
    lines = _PLACE_LINE.findall(stack[-_MAX_STACK:])
    if lines:
        return lines[-1][0], int(lines[-1][1])
    match = _PLACE.search(stack[:_MAX_STACK])
    if match:
        return match[1], int(match[2])
    line = case.get("line", "")
    return case.get("file"), int(line) if line.isascii() and line.isdigit() and len(line) < 8 else None


def _outputs(root: Element) -> Iterator[str]:
    for element in root.iter():
        if element.tag in ("system-out", "system-err") and element.text and element.text.strip():
            yield element.text.strip()


def _seconds(root: Element, suites: list[Element]) -> float:
    if root.get("time"):
        return number(root.get("time"))
    told = sum(number(suite.get("time")) for suite in suites)
    return told or sum(number(case.get("time")) for case in root.iter("testcase"))


def _began(suites: list[Element]) -> datetime:
    """When the first suite began; now, if no suite says so in a way that can be."""
    now = datetime.now(UTC)
    times = []
    for suite in suites:
        try:
            told = datetime.fromisoformat(suite.get("timestamp", ""))
            told = told.replace(tzinfo=UTC) if told.tzinfo is None else told.astimezone(UTC)
        except (ValueError, OverflowError):
            continue
        if told <= now + timedelta(days=1):
            times.append(told)
    return min(times, default=now)
