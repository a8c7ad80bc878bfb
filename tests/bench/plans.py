"""Plans of the statements that the service sends, as PostgreSQL logs them (auto_explain)."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.bench.cases import Case

_SECONDS = 30
_SETTINGS = {
    "session_preload_libraries": "'auto_explain'",
    "log_destination": "'jsonlog'",
    "auto_explain.log_format": "'json'",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_buffers": "on",
}
#: Tables with a few dozen rows, where a sequential scan is right.
SMALL = frozenset({"agents"})


def prepare(dsn: str) -> None:
    """Load auto_explain in all later connections; it logs nothing yet."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("LOAD 'auto_explain'")
        for name, value in (_SETTINGS | {"auto_explain.log_min_duration": "-1"}).items():
            connection.execute(f"ALTER SYSTEM SET {name} = {value}")
        connection.execute("SELECT pg_reload_conf()")


@dataclass(slots=True)
class Plans:
    """What the statements of one case read of its table."""

    statements: int = 0
    #: Pages of 8 KiB that they read, altogether.
    buffers: int = 0
    partitions: set[str] = field(default_factory=set)
    indexes: set[str] = field(default_factory=set)
    #: Tables or partitions with rows that were read by a sequential scan.
    sequential: set[str] = field(default_factory=set)
    #: Tables or partitions without rows that were read by a sequential scan.
    empty: set[str] = field(default_factory=set)

    def add(self, plan: dict[str, Any]) -> None:
        self.statements += 1
        self.buffers += plan.get("Shared Hit Blocks", 0) + plan.get("Shared Read Blocks", 0)
        for node in _nodes(plan):
            relation = node.get("Relation Name")
            if relation is not None:
                self.partitions.add(relation)
            if "Index Name" in node:
                self.indexes.add(re.sub(r"_p[0-9]{8}|_default", "", node["Index Name"]))
            if node["Node Type"] == "Seq Scan" and relation is not None and node.get("Actual Loops", 1):
                read = node.get("Actual Rows", 0) or node.get("Rows Removed by Filter", 0)
                (self.sequential if read else self.empty).add(relation)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


class PlanLog:
    """A context manager that turns the log of plans on. Call `mark` before each case and `read` after the last."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._folder = folder
        self._cases: list[Case] = []

    def __enter__(self) -> PlanLog:
        self._set("0")
        return self

    def __exit__(self, *_: object) -> None:
        self._set("-1")
        self._connection.close()

    def mark(self, case: Case) -> None:
        self._cases.append(case)
        self._log(f"case {len(self._cases) - 1}")

    def read(self) -> list[tuple[Case, Plans]]:
        end = f"end {time.time()}"
        self._log(end)
        deadline = time.monotonic() + _SECONDS
        while not any(f"'{end}'" in text for text, _ in self._logged()):
            assert time.monotonic() < deadline, f"PostgreSQL logs no plans in {self._folder}"
            time.sleep(0.2)
        found = [(case, Plans()) for case in self._cases]
        number = None
        for text, plan in self._logged():
            if match := re.fullmatch(r"SELECT 'case (\d+)'", text):
                number = int(match[1])
            elif number is not None:
                case, plans = found[number]
                if re.search(rf"\b(FROM|JOIN) {case.table}\b", text):
                    plans.add(plan)
        return found

    def _set(self, duration: str) -> None:
        self._connection.execute(f"ALTER SYSTEM SET auto_explain.log_min_duration = {duration}")
        self._connection.execute("SELECT pg_reload_conf()")
        # Only what is logged from now on is read.
        self._offsets = {file: file.stat().st_size for file in self._folder.glob("*.json")}
        time.sleep(0.5)

    def _log(self, what: str) -> None:
        self._connection.execute(f"SELECT '{what}'")

    def _logged(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Text and plan of each statement, in the order in which they ended."""
        for file in sorted(self._folder.glob("*.json"), key=lambda file: file.stat().st_mtime):
            with file.open() as lines:
                lines.seek(self._offsets.get(file, 0))
                for line in lines:
                    message = json.loads(line)["message"] if line.endswith("\n") else ""
                    if "  plan:\n" in message:
                        logged = json.loads(message.partition("plan:\n")[2])
                        yield logged["Query Text"], logged["Plan"]
