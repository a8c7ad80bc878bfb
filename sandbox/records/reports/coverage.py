"""Reads coverage reports (Cobertura XML, coverage.py's JSON) as rows of `coverage`, one for each package."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element

from sandbox.records.reports.xml import ReportRefused, number, parse
from sandbox.telemetry.rows import clean_text

#: Most rows of one report.
MAX_COMPONENTS = 5_000
_MAX_COMPONENT = 100
_CONDITIONS = re.compile(r"\(([0-9]{1,7})/([0-9]{1,7})\)")


@dataclass(slots=True)
class _Component:
    files: set[str] = field(default_factory=set)
    lines: dict[tuple[str, str], bool] = field(default_factory=dict)
    branches: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    complexity: float | None = None


def read_cobertura(content: bytes) -> list[dict[str, Any]]:
    """The columns of `coverage` for each package of the report that has lines. Raises ReportRefused.

    Numbers are counted from the lines, because tools do not agree on what their totals mean.
    """
    root = parse(content, "Cobertura report").root
    if root.tag != "coverage":
        raise ReportRefused(
            f"A Cobertura report begins with coverage, not {clean_text(root.tag, 50)}.",
            hint="Send the file of `coverage xml` or of a Cobertura reporter.",
        )
    components: dict[str, _Component] = {}
    source = _only_source(root)
    for package in root.iter("package"):
        for unit in package.iter("class"):
            file = unit.get("filename") or unit.get("name") or "unnamed"
            name = package.get("name", "").strip() or _folder(file)
            if name == ".":
                # coverage.py's name for the measured folder, which is the same in every project.
                name = source
            component = components.setdefault(name, _Component())
            component.files.add(file)
            if package.get("complexity"):
                component.complexity = number(package.get("complexity"))
            _count_lines(component, unit, file)
    rows = [
        _row(
            name,
            sum(component.lines.values()),
            len(component.lines),
            sum(covered for covered, _ in component.branches.values()),
            sum(total for _, total in component.branches.values()),
            {"format": "cobertura", "files": len(component.files)}
            | ({"complexity_avg": component.complexity} if component.complexity else {}),
        )
        for name, component in components.items()
        if component.lines
    ]
    return _checked(rows)


def read_coverage_json(content: bytes) -> list[dict[str, Any]]:
    """The columns of `coverage` for each folder of a report of `coverage json`. Raises ReportRefused."""
    try:
        files = json.loads(content)["files"]
        counts_by_folder: dict[str, list[list[int]]] = {}
        for path, file in files.items():
            counts = _counts(file["summary"])
            if counts[1]:
                counts_by_folder.setdefault(_folder(path), []).append(counts)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ReportRefused(
            "The body is not a JSON report of coverage.py.", hint="Send the file of `coverage json`."
        ) from error
    rows = []
    for name, measured in counts_by_folder.items():
        lines, of_lines, branches, of_branches = (sum(column) for column in zip(*measured, strict=True))
        metadata = {"format": "coverage.py", "files": len(measured)}
        rows.append(_row(name, lines, of_lines, branches, of_branches, metadata))
    return _checked(rows)


def _only_source(root: Element) -> str:
    """The name of the measured folder if there is exactly one, else `.`."""
    sources = [source.text.strip() for source in root.iterfind("sources/source") if source.text and source.text.strip()]
    return (PurePosixPath(sources[0].replace("\\", "/")).name if len(sources) == 1 else "") or "."


def _count_lines(component: _Component, unit: Element, file: str) -> None:
    for line in unit.iter("line"):
        # Lines of methods are listed again in their class.
        key = file, line.get("number", "")
        component.lines[key] = component.lines.get(key, False) or number(line.get("hits"), most=math.inf) > 0
        conditions = _CONDITIONS.search(line.get("condition-coverage", ""))
        if conditions and line.get("branch", "").lower() == "true":
            total = int(conditions[2])
            component.branches[key] = min(int(conditions[1]), total), total


def _row(
    name: str, lines: int, of_lines: int, branches: int, of_branches: int, metadata: dict[str, Any]
) -> dict[str, Any]:
    name = clean_text(name, 10_000)
    return {
        # The end of a long name is more specific than its beginning.
        "component": name if len(name) <= _MAX_COMPONENT else "…" + name[1 - _MAX_COMPONENT :],
        "coverage_percent": round(100 * lines / of_lines, 2),
        "lines_covered": lines,
        "lines_total": of_lines,
        "branches_covered": branches if of_branches else None,
        "branches_total": of_branches or None,
        "metadata": metadata,
    }


def _checked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not rows:
        raise ReportRefused("The report has no lines.", hint="Check that the run measured something.")
    if len(rows) > MAX_COMPONENTS:
        raise ReportRefused(f"The report has more than {MAX_COMPONENTS} packages.", hint="Send it in parts.")
    return rows


def _folder(path: str) -> str:
    """A file's folder as a package's name."""
    return ".".join(PurePosixPath(path.replace("\\", "/")).parent.parts).strip("./") or "."


def _counts(summary: dict[str, Any]) -> list[int]:
    names = ("covered_lines", "num_statements", "covered_branches", "num_branches")
    counts = [summary.get(name, 0) for name in names]
    if not all(isinstance(count, int) and 0 <= count < 10**9 for count in counts):
        raise ValueError("not counts")
    if counts[0] > counts[1] or counts[2] > counts[3]:
        raise ValueError("more is covered than there is")
    return counts
