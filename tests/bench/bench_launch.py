"""Compares the second launch of `examples/fullstack`, with its dependencies kept, with the first one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.api import Api
from tests.bench.measure import p50, print_durations, print_ratio
from tests.bench.service import launching_service

ROUNDS = 5
INSTALLS_MB = "2048"
PROJECT = Path(__file__).resolve().parents[2] / "examples" / "fullstack"


@dataclass(frozen=True, slots=True)
class Launch:
    """The seconds of one launch, and of its stages."""

    total: float
    stages: dict[str, float]


def main() -> None:
    first: list[Launch] = []
    second: list[Launch] = []
    with launching_service(SANDBOX_INSTALLS_MB=INSTALLS_MB, SANDBOX_POOL_MAX="4") as api:
        api.upload_folder("fullstack", PROJECT)
        for _ in range(ROUNDS):
            api.http.delete("/api/v1/cache").raise_for_status()
            first.append(_launch(api, "miss"))
            second.append(_launch(api, "hit"))
    for name, launches in (("first", first), ("second", second)):
        print_durations(f"{name} launch, from POST to the end", sorted(launch.total for launch in launches))
        for stage in launches[0].stages:
            print_durations(f"    {stage}", sorted(launch.stages[stage] for launch in launches))
    totals = [sorted(launch.total for launch in launches) for launches in (second, first)]
    print_ratio("second / first, all stages", p50(totals[0]) / p50(totals[1]), "under 0.2")
    installs = [sorted(launch.stages["dependencies"] for launch in launches) for launches in (second, first)]
    print_ratio("second / first, dependencies", p50(installs[0]) / p50(installs[1]), "under 0.2")


def _launch(api: Api, expected: str) -> Launch:
    """Launch the project, check what was done with the dependencies of both roles, and end the session."""
    begin = time.perf_counter()
    session, events = api.launch(project_id="fullstack")
    total = time.perf_counter() - begin
    assert session["status"] == "running", session
    installs = [event.data["install"]["cache"] for event in events if event.event == "log" and "install" in event.data]
    assert installs == [expected] * 2, installs
    ended = [event.data for event in events if event.event == "stage" and event.data["state"] == "completed"]
    api.end(session["session_id"])
    return Launch(total, {stage["stage"]: stage["duration_ms"] / 1000 for stage in ended})
