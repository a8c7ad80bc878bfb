"""Times several calls alternately, so that other load of the machine affects all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.bench.results import RESULTS

#: The number of consecutive calls of one kind, and the pause before them. A container engine goes on cleaning up after
#: it has answered, and the pause keeps this out of the next measurement.
BLOCK = 10
PAUSE_SECONDS = 0.5


def alternately(rounds: int, **calls: Callable[[], object]) -> dict[str, list[float]]:
    """Run each call `rounds` times, in alternating blocks. Return the sorted durations in seconds, by name."""
    durations: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()  # the first call of each opens connections and fills caches
    for _ in range(max(1, rounds // BLOCK)):
        for name, call in calls.items():
            time.sleep(PAUSE_SECONDS)
            for _ in range(BLOCK):
                start = time.perf_counter()
                call()
                durations[name].append(time.perf_counter() - start)
    return {name: sorted(values) for name, values in durations.items()}


def p50(values: list[float]) -> float:
    return values[len(values) // 2]


def p95(values: list[float]) -> float:
    return values[int(len(values) * 0.95)]


def p99(values: list[float]) -> float:
    return values[int(len(values) * 0.99)]


def print_durations(what: str, values: list[float]) -> None:
    print(f"  {what:<44} p50 {p50(values) * 1000:8.2f} ms   p95 {p95(values) * 1000:8.2f} ms", flush=True)


def print_ratio(what: str, value: float, target: str) -> None:
    RESULTS.add(what, value)
    print(f"  {what:<44} {value:8.3f}        wanted: {target}", flush=True)
