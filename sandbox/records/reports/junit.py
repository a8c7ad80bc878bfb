"""JUnit XML, as pytest, Jest, Maven and Go's converters write it, as one row of `test_results`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any
from xml.etree.ElementTree import Element

from sandbox.records.reports.warnings import console_warnings, warnings_in
from sandbox.records.reports.xml import ReportRefused, number, parse
from sandbox.telemetry.rows import clean_text

MAX_DETAILS = 1_000
MAX_OUTPUT = 65_536
_MAX_NAME, _MAX_ERROR, _MAX_STACK = 1_000, 2_000, 16_000
#: Characters of all stack traces of a run together: what comes after them has none.
_MAX_STACKS = 262_144

#: `file:line:` at the start of a line, as pytest and Go write the place of a failure.
_PLACE_LINE = re.compile(r"^\s{0,8}([^\s:]{1,300}\.\w{1,5}):([0-9]{1,7}):", re.MULTILINE)
#: `file:line` anywhere, as in the stack traces of JavaScript (of whose modules some are URLs) and Java.
_PLACE = re.compile(r"(?:file://(?=/))?([\w./\\@+-]{1,300}\.\w{1,5}):([0-9]{1,7})")
#: What converters say where a tool gave no message; its text says more.
_NO_MESSAGE = ("", "Failed", "Build error", "Runtime error", "No test result found")
_FAILURES = ("failure", "error")


def read_junit(content: bytes, console: bytes | None = None) -> dict[str, Any]:
    """The columns of `test_results` that the report tells of, with the run's console output if there is one.

    `status` is `completed`: the run came to its end, whatever its tests say. A test that both failed and broke counts
    once; one that is still to do counts as skipped. Raises ReportRefused.
    """
    root = parse(content, "JUnit report")
    if root.tag not in ("testsuites", "testsuite"):
        raise ReportRefused(
            f"A JUnit report begins with testsuites or testsuite, not {clean_text(root.tag, 50)}.",
            hint="Send the file of `pytest --junitxml`, jest-junit, Surefire or go-junit-report.",
        )
    failed, total, broken, skipped, room = list[dict[str, Any]](), 0, 0, 0, _MAX_STACKS
    for case in root.iter("testcase"):
        total += 1
        failure, skip = _failure(case), case.find("skipped")
        if skip is not None and (failure is None or skip.get("type") == "todo"):
            skipped += 1
        elif failure is not None:
            broken += 1
            if len(failed) < MAX_DETAILS:
                failed.append(_failed_test(case, failure, room))
                room -= len(failed[-1].get("stack_trace", ""))
    captured = list(_outputs(root))
    printed = [console.decode("utf-8", "replace")] if console else []
    warnings, told = _warnings(printed, captured)
    output = "\n".join(printed or captured)
    return {
        "status": "completed",
        "timestamp": _began(root),
        "total_tests": total,
        "passed": total - broken - skipped,
        "failed": broken,
        "skipped": skipped,
        "warnings": told,
        "execution_time": _seconds(root),
        "failed_tests": failed,
        "warning_details": warnings[:MAX_DETAILS],
        # How a run ended says more than how it began.
        "test_output": clean_text(output[-MAX_OUTPUT:], MAX_OUTPUT) if output else None,
    }


def _failure(case: Element) -> Element | None:
    return next((found for tag in _FAILURES if (found := case.find(tag)) is not None), None)


def _failed_test(case: Element, failure: Element, room: int) -> dict[str, Any]:
    """The documented shape; of the stack trace no more than there is `room` for."""
    stack = (failure.text or "").strip()
    error = (failure.get("message") or "").strip()
    if error in _NO_MESSAGE:
        error = stack.partition("\n")[0] or error or failure.get("type") or failure.tag
    file, line = _place(case, stack)
    test: dict[str, Any] = {
        "name": clean_text(case.get("name") or case.get("classname") or "unnamed", _MAX_NAME),
        "error": clean_text(error, _MAX_ERROR),
    }
    if file:
        test["file"] = clean_text(file, _MAX_NAME)
    if line is not None:
        test["line"] = line
    if stack and room > 0:
        test["stack_trace"] = clean_text(stack, min(_MAX_STACK, room))
    return test


def _warnings(printed: Iterable[str], captured: Iterable[str]) -> tuple[list[dict[str, Any]], int]:
    """What was warned of, and how often. The console repeats what some tests printed, but not what all did."""
    found, told = list[dict[str, Any]](), 0
    for output in printed:
        details, count = warnings_in(output)
        found, told = found + details, told + count
    known = {tuple(detail.items()) for detail in found}
    for output in captured:
        details = list(console_warnings(output)) or warnings_in(output)[0]
        new = [detail for detail in details if tuple(detail.items()) not in known]
        found, told = found + new, told + len(new)
    return found, told


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


def _seconds(of: Element) -> float:
    """What the report says, or else the sum of what its parts say. Suites may hold suites."""
    total, waiting = 0.0, [of]
    while waiting:
        element = waiting.pop()
        told = number(element.get("time"))
        total += told
        if not told:
            waiting += [child for child in element if child.tag in ("testsuite", "testcase")]
    return total


def _began(root: Element) -> datetime:
    """When the first suite began; now, if no suite says so in a way that can be. Without a zone it is UTC."""
    now = datetime.now(UTC)
    times = [now]
    for suite in root.iter():
        if suite.tag not in ("testsuites", "testsuite"):
            continue
        try:
            told = datetime.fromisoformat(suite.get("timestamp", ""))
            times.append(told.replace(tzinfo=UTC) if told.tzinfo is None else told.astimezone(UTC))
        except (ValueError, OverflowError):
            continue
    return min(times)
