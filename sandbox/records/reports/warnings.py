"""Finds warnings in the output of a test run: test reports have no field for them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from sandbox.telemetry.rows import clean_text

_MAX_MESSAGE, _MAX_FILE = 2_000, 1_000
_MAX_LINE = 4_000

#: Forms of a warning, each one line; the first that matches is used.
_FORMS = (
    # Python, and pytest's summary: `shop.py:5: DeprecationWarning: old() is deprecated`
    re.compile(r"\s{0,8}(?P<file>[^\s:]{1,300}):(?P<line>[0-9]{1,7}): (?P<message>\w{0,50}Warning: .+)"),
    # Node: `(node:4711) [DEP0005] DeprecationWarning: Buffer() is deprecated`
    re.compile(r"\(node:[0-9]{1,10}\) (?P<message>(?:\[\w{1,20}\] )?\w{0,50}Warning: .+)"),
    # Python's logging, as pytest captures it: `WARNING  shop:stock.py:17 low on stock`
    re.compile(r"WARNING {1,4}[^\s:]{1,200}:(?P<file>[^\s:]{1,300}):(?P<line>[0-9]{1,7}) (?P<message>.+)"),
    # Maven's compiler: `[WARNING] /src/Cart.java:[21,5] unchecked call`
    re.compile(r"\[WARNING\] (?P<file>\S{1,300}):\[(?P<line>[0-9]{1,7}),[0-9]{1,7}\] (?P<message>.+)"),
    # Java's loggers: `12:00:01.123 [main] WARN  shop.Cart - low on stock`
    re.compile(r"[0-9][0-9T:.,/ Z+-]{7,40}(?:\[[^\]]{0,200}\] {0,4})?(?:WARN|WARNING)\b[ :]{1,4}(?P<message>.+)"),
    re.compile(r"(?:\[WARNING\]|\[WARN\]|WARNING:|WARN:|[Ww]arning:) {1,8}(?P<message>.+)"),
)
#: The last line of pytest: `== 1 failed, 2 passed, 3 warnings in 0.12s ==`
_PYTEST_END = re.compile(r"(?:={1,200} )?[0-9]{1,9} \w{1,50}[^=]{0,300} in [0-9.]{1,20}s\b")
_PYTEST_COUNT = re.compile(r"\b([0-9]{1,7}) warnings?\b")

#: A place in the stack traces of JavaScript: `(/src/cart.js:21:5)`
_ORIGIN = re.compile(r"\(?([^\s()]{1,300}):([0-9]{1,7}):[0-9]{1,7}\)?")


def warnings_in(output: str) -> tuple[list[dict[str, Any]], int]:
    """The warnings in the documented shape, and their number: pytest prints repeated ones once but counts them all."""
    found, counted = [], 0
    for line in output.splitlines():
        if "arn" not in line and "ARN" not in line:
            continue
        cut = line[:_MAX_LINE].rstrip()
        match = next((match for form in _FORMS if (match := form.match(cut))), None)
        if match is not None:
            found.append(_detail(match.groupdict()))
        elif _PYTEST_END.match(cut) and (count := _PYTEST_COUNT.search(cut)):
            counted = max(counted, int(count[1]))
    return found, max(counted, len(found))


def console_warnings(output: str) -> Iterator[dict[str, Any]]:
    """Warnings in the console output that jest-junit includes: a JSON array of messages."""
    if not output.startswith("["):
        return
    try:
        entries = json.loads(output)
    except (ValueError, RecursionError):
        return
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("type") == "warn" and isinstance(entry.get("message"), str):
            origin = re.search(
                r"\(?([^\s()]{1,300}):([0-9]{1,7}):[0-9]{1,7}\)?", str(entry.get("origin", ""))[:_MAX_LINE]
            )
            file, line = (origin[1], origin[2]) if origin else (None, None)
            yield _detail({"message": entry["message"], "file": file, "line": line})


def _detail(found: dict[str, str | None]) -> dict[str, Any]:
    detail: dict[str, Any] = {"message": clean_text((found["message"] or "").strip(), _MAX_MESSAGE)}
    if found.get("file"):
        detail["file"] = clean_text(found["file"] or "", _MAX_FILE)
    if found.get("line"):
        detail["line"] = int(found["line"] or 0)
    return detail
