"""Times things in turns, so that whatever the machine does meanwhile falls on all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Calls of one act in a row, and the rest before them: an engine goes on tidying up after it has answered, which is
#: neither act's affair to pay for.
BLOCK = 10
REST_SECONDS = 0.5


def in_turns(rounds: int, **acts: Callable[[], object]) -> dict[str, list[float]]:
    """Seconds each act took, by name, sorted: `rounds` of each, a block of one after a block of the other."""
    taken: dict[str, list[float]] = {name: [] for name in acts}
    for act in acts.values():
        act()  # the first of each pays for connections and caches
    for _ in range(max(1, rounds // BLOCK)):
        for name, act in acts.items():
            time.sleep(REST_SECONDS)
            for _ in range(BLOCK):
                start = time.perf_counter()
                act()
                taken[name].append(time.perf_counter() - start)
    return {name: sorted(values) for name, values in taken.items()}


def p50(values: list[float]) -> float:
    return values[len(values) // 2]


def p95(values: list[float]) -> float:
    return values[int(len(values) * 0.95)]


def line(what: str, values: list[float]) -> None:
    print(f"  {what:<44} p50 {p50(values) * 1000:8.2f} ms   p95 {p95(values) * 1000:8.2f} ms", flush=True)


def ratio(what: str, value: float, wanted: str) -> None:
    print(f"  {what:<44} {value:8.3f}        wanted: {wanted}", flush=True)
