"""Reads JUnit XML of pytest, Jest, Maven and Go's converters as one row of `test_results`."""

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
#: Most characters of all stack traces of a run together; later failures have none.
_MAX_STACKS = 262_144

#: `file:line:` at the start of a line, as pytest and Go write the location of a failure.
_LOCATION_LINE = re.compile(r"^\s{0,8}([^\s:]{1,300}\.\w{1,5}):([0-9]{1,7}):", re.MULTILINE)
#: The end of `file:line` anywhere, as in the stack traces of JavaScript (of whose modules some are URLs) and Java.
_LOCATION_END = re.compile(r"\.\w{1,5}:([0-9]{1,7})")
#: What precedes that: searched backwards from there, because a search for it would look at each text many times.
_PATH_CHARACTER = re.compile(r"[\w./\\@+-]")
_MAX_PATH = 300
#: Messages that converters insert where a tool gave none; the text of the failure is better.
_NO_MESSAGE = ("", "Failed", "Build error", "Runtime error", "No test result found")
_FAILURES = ("failure", "error")
_SUITES = ("testsuite", "testsuites")
#: A larger number of tests in one suite is a mistake.
_MAX_TESTS = 10**6
#: More tests than this are not counted by what suites state, since the columns have 32 bits.
_MAX_TOTAL = 10**9


def read_junit(content: bytes, console: bytes | None = None) -> dict[str, Any]:
    """The columns of `test_results` that the report has values for. `console` is the output of the run, if it was sent.

    `status` is `completed` even if tests failed, because the run reached its end. A test with a failure and an error
    counts once; a `todo` test counts as skipped. An error of a whole suite, which has no test, counts as a failed test
    of the suite's name. Of a suite that states numbers and lists no test, the numbers count. Raises ReportRefused.
    """
    document = parse(content, "JUnit report")
    root = document.root
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
    for suite, failure in _suite_errors(root):
        total, broken = total + 1, broken + 1
        if len(failed) < MAX_DETAILS:
            failed.append(_failed_test(suite, failure, room))
            room -= len(failed[-1].get("stack_trace", ""))
    for suite in _without_tests(root):
        counts = _stated(suite)
        if total + counts[0] > _MAX_TOTAL:
            break
        total, broken, skipped = total + counts[0], broken + counts[1], skipped + counts[2]
        if counts[1] and len(failed) < MAX_DETAILS:
            said = f"{counts[1]} of {counts[0]} tests failed; the report does not name them"
            failed.append(_failed_test(suite, Element("failure", message=said), 0))
    captured = list(_outputs(root))
    printed = [console.decode("utf-8", "replace")] if console else []
    warnings, count = _warnings(printed, captured)
    if document.removed:
        count += 1
        warnings.append({"message": f"{document.removed} control characters were taken out of the report"})
    output = "\n".join(printed or captured)
    return {
        "status": "completed",
        "timestamp": _began(root),
        "total_tests": total,
        "passed": total - broken - skipped,
        "failed": broken,
        "skipped": skipped,
        "warnings": count,
        "execution_time": _seconds(root),
        "failed_tests": failed,
        "warning_details": warnings[:MAX_DETAILS],
        # The end of the output is more useful than its beginning.
        "test_output": clean_text(output[-MAX_OUTPUT:], MAX_OUTPUT) if output else None,
    }


def _failure(case: Element) -> Element | None:
    return next((found for tag in _FAILURES if (found := case.find(tag)) is not None), None)


def _suite_errors(root: Element) -> Iterator[tuple[Element, Element]]:
    """Suites that failed as a whole, such as those whose set-up raised an error, with the failure."""
    for suite in root.iter():
        failure = _failure(suite) if suite.tag in _SUITES else None
        if failure is not None:
            yield suite, failure


def _without_tests(root: Element) -> Iterator[Element]:
    """Suites that contain no test, no other suite and no failure."""
    for suite in root.iter():
        if suite.tag in _SUITES and not any(child.tag in ("testcase", *_SUITES, *_FAILURES) for child in suite):
            yield suite


def _stated(suite: Element) -> tuple[int, int, int]:
    """The numbers of tests, of failed and of skipped ones that a suite states."""
    tests, failures, errors, skipped, disabled = (
        int(number(suite.get(name), _MAX_TESTS)) for name in ("tests", "failures", "errors", "skipped", "disabled")
    )
    broken, left_out = failures + errors, skipped + disabled
    return max(tests, broken + left_out), broken, left_out


def _failed_test(case: Element, failure: Element, room: int) -> dict[str, Any]:
    """A failed test in the documented shape, with at most `room` characters of its stack trace."""
    stack = (failure.text or "").strip()
    error = (failure.get("message") or "").strip()
    if error in _NO_MESSAGE:
        error = stack.partition("\n")[0] or error or failure.get("type") or failure.tag
    file, line = _location(case, stack)
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
    """Warnings and their number. The console output repeats the captured output of some tests, but not of all."""
    found, total = list[dict[str, Any]](), 0
    for output in printed:
        details, count = warnings_in(output)
        found, total = found + details, total + count
    known = {tuple(detail.items()) for detail in found}
    for output in captured:
        details = list(console_warnings(output)) or warnings_in(output)[0]
        new = [detail for detail in details if tuple(detail.items()) not in known]
        found, total = found + new, total + len(new)
    return found, total


def _location(case: Element, stack: str) -> tuple[str | None, int | None]:
    """File and line of a failure: from the stack trace, else from the test case."""
    lines = _LOCATION_LINE.findall(stack[-_MAX_STACK:])
    if lines:
        return lines[-1][0], int(lines[-1][1])
    if found := _first_location(stack[:_MAX_STACK]):
        return found
    line = case.get("line", "")
    return case.get("file"), int(line) if line.isascii() and line.isdigit() and len(line) < 8 else None


def _first_location(text: str) -> tuple[str, int] | None:
    """The first `file:line` in a text."""
    for match in _LOCATION_END.finditer(text):
        start = match.start()
        first = max(0, start - _MAX_PATH)
        while start > first and _PATH_CHARACTER.match(text, start - 1):
            start -= 1
        if text.startswith("///", start) and text.endswith("file:", 0, start):
            start += 2
        if start < match.start():
            return text[start : match.start(1) - 1], int(match[1])
    return None


def _outputs(root: Element) -> Iterator[str]:
    for element in root.iter():
        if element.tag in ("system-out", "system-err") and element.text and element.text.strip():
            yield element.text.strip()


def _seconds(of: Element) -> float:
    """The duration in the report, or the sum of the durations of its parts. Suites may be nested."""
    total, stack = 0.0, [of]
    while stack:
        element = stack.pop()
        seconds = number(element.get("time"))
        total += seconds
        if not seconds:
            stack += [child for child in element if child.tag in ("testsuite", "testcase")]
    return total


def _began(root: Element) -> datetime:
    """The earliest valid start time of a suite that is not in the future, else now. A time without a zone is UTC."""
    now = datetime.now(UTC)
    times = [now]
    for suite in root.iter():
        if suite.tag not in ("testsuites", "testsuite"):
            continue
        try:
            began = datetime.fromisoformat(suite.get("timestamp", ""))
            times.append(began.replace(tzinfo=UTC) if began.tzinfo is None else began.astimezone(UTC))
        except (ValueError, OverflowError):
            continue
    return min(times)
