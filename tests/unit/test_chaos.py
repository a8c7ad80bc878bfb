"""The parts of the fault run that judge and count."""

from __future__ import annotations

import pytest

from tests.acceptance.api import SseEvent
from tests.chaos.counts import COUNTERS, Counts
from tests.chaos.faults import ALONE, FAULTS
from tests.chaos.sessions import event_faults, runs_of


def events(*ids: int, run: str = "one") -> list[SseEvent]:
    return [SseEvent(str(number), "log", {"run_id": run}) for number in ids]


@pytest.mark.parametrize(
    ("stored", "seen", "counters"),
    [
        ([1, 2, 3], [1, 2, 3], set()),
        ([1, 2, 3], [1, 3], {"missing"}),
        ([1, 2, 3], [1, 2, 2, 3], {"doubled"}),
        ([1, 3], [1, 3], {"missing"}),
        ([1, 2, 2], [1, 2, 2], {"doubled"}),
        ([1, 2, 3], [1, 1, 3], {"doubled", "missing"}),
    ],
)
def test_events_that_are_missing_or_doubled_are_found(stored: list[int], seen: list[int], counters: set[str]) -> None:
    assert set(event_faults(events(*stored), seen)) == counters


def test_runs_are_counted_by_their_ids() -> None:
    assert runs_of(events(1, 2) + events(3, run="two")) == 2


def test_the_table_has_a_line_for_each_kind_and_one_for_all() -> None:
    counts = Counts()
    counts.took("service_kill", 1, 1.0)
    counts.took("service_kill", 1, 3.0)
    counts.took("disk_full", 1, 5.0)
    assert not counts.failed
    counts.count("leaked", "disk_full", "a volume")
    counts.recovered["service_kill"] += 1
    assert counts.failed
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in counts.table().splitlines()]
    leaked = 2 + COUNTERS.index("leaked")
    assert [line[0] for line in lines[2:]] == ["disk_full", "service_kill", "all"]
    assert [line[leaked] for line in lines[2:]] == ["1", "0", "1"]
    assert lines[3] == ["service_kill", "2", "0", "0", "0", "0", "0", "1", "2.0", "3.0"]
    assert lines[4][1] == "3"


def test_every_fault_has_a_name() -> None:
    assert len(FAULTS) == 14
    assert set(FAULTS) > ALONE
