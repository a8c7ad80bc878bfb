"""What refinement runs read: failed launches, failed tests and error logs, as issues of one shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandbox.learning.quoting import normalise

#: The agent whose lessons the launch pipeline itself carries out.
PIPELINE_AGENT = "Sandbox Launch Pipeline"
#: The agent of each type of test.
TEST_AGENTS = {
    "unit": "Unit Testing",
    "integration": "Integration Testing",
    "security": "Security Testing",
    "performance": "Performance Testing",
    "regression": "Regression Testing",
    "uat": "User Acceptance Testing",
    "load": "Load Testing",
    "smoke": "Smoke Testing",
    "e2e": "End-to-End Testing",
}
TEST_FAMILY = "test_failed"
LOG_FAMILY = "error_logged"
_MAX_TESTS = 200


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing that went wrong, for one agent."""

    agent_name: str
    #: `source_issue_type` of its lesson.
    issue_type: str
    family: str
    signature: str
    particulars: Mapping[str, str] = field(default_factory=dict)
    runtime: str | None = None
    framework: str | None = None
    category: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The issues of one agent with one signature."""

    agent_name: str
    signature: str
    issues: Sequence[Issue]

    @property
    def first(self) -> Issue:
        return self.issues[0]

    def common(self, name: str) -> str | None:
        """The value of a field that all issues share, or None."""
        values = {getattr(issue, name) for issue in self.issues}
        return values.pop() if len(values) == 1 else None


def group(issues: Iterable[Issue]) -> list[Group]:
    """The issues by agent and signature, in the order of their first appearance."""
    found: dict[tuple[str, str], list[Issue]] = {}
    for issue in issues:
        found.setdefault((issue.agent_name, issue.signature), []).append(issue)
    return [Group(agent, signature, members) for (agent, signature), members in found.items()]


def of_launch(row: Any) -> list[Issue]:
    """The issues of a row of `launch_failures`: one for the pipeline, and one for each agent whose work failed."""
    return [
        Issue(agent, row.code, row.family, row.signature, row.particulars, row.runtime, row.framework)
        for agent in dict.fromkeys((PIPELINE_AGENT, *row.agents))
    ]


def of_tests(test_type: str, failed_tests: object) -> list[Issue]:
    """The issues of one row of `test_results`."""
    failed = failed_tests if isinstance(failed_tests, list) else []
    agent = TEST_AGENTS.get(test_type, "Unit Testing")
    issues = []
    for test in failed[:_MAX_TESTS]:
        if not isinstance(test, dict):
            continue
        message = str(test.get("error") or test.get("message") or test.get("name") or "")
        first = next((line for line in message.splitlines() if line.strip()), "")
        category = {"security": "security", "performance": "performance", "load": "performance"}.get(test_type)
        signature = f"{test_type} test: {normalise(first)}"
        issues.append(Issue(agent, TEST_FAMILY, TEST_FAMILY, signature, category=category))
    return issues


def of_log(service: str, message: str) -> Issue:
    """The issue of one log line of level ERROR or CRITICAL."""
    first = next((line for line in message.splitlines() if line.strip()), "")
    return Issue(service, LOG_FAMILY, LOG_FAMILY, f"log: {normalise(first)}")
