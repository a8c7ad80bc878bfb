"""The parts of the fault run that judge and count."""

from __future__ import annotations

import pytest

from tests.acceptance.api import SseEvent
from tests.chaos.counts import COUNTERS, Counts
from tests.chaos.faults import ALONE, BY_ADMIN, FAULTS, OF_SESSIONS
from tests.chaos.report import report
from tests.chaos.sessions import event_faults, possible_installs


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


def test_an_install_runs_once_in_each_run_and_for_each_replaced_container() -> None:
    stored = events(1, 2) + events(3, run="two")
    for event in stored:
        event.data["line"] = "installing"
    assert possible_installs(stored) == 2
    stored[0].data["line"] = "the container of role web is gone: it is brought back, and the launch goes on from there"
    assert possible_installs(stored) == 3


def test_the_table_has_a_line_for_each_kind_and_one_for_all() -> None:
    counts = Counts()
    counts.took("service_kill", 1, 1.0)
    counts.took("service_kill", 1, 3.0)
    counts.took("disk_full", 1, 5.0)
    assert not counts.failed
    counts.count("leaked", "disk_full", "disk_full", "a volume")
    counts.brought_back("service_kill")
    assert counts.failed
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in counts.table().splitlines()]
    leaked = 2 + COUNTERS.index("leaked")
    assert [line[0] for line in lines[2:]] == ["disk_full", "service_kill", "all"]
    assert [line[leaked] for line in lines[2:]] == ["1", "0", "1"]
    assert lines[3] == ["service_kill", "2", "0", "0", "0", "0", "0", "1", "2.0", "3.0"]
    assert lines[4][1] == "3"


def test_every_fault_has_a_name() -> None:
    assert len(FAULTS) == 17
    assert set(FAULTS) > ALONE
    assert set(FAULTS) > OF_SESSIONS > BY_ADMIN


def test_the_report_says_how_much_was_run_and_what_was_found() -> None:
    counts = Counts()
    counts.took("reboot", 1, 4.0)
    assert "1 faults in 2 minutes, with the seed 7" in report(counts, 7, 2.2).replace("\n", " ")
    assert "Nothing was lost" in report(counts, 7, 2.2)
    counts.count("lost", "reboot", "reboot", "it is gone")
    assert "- lost after reboot: it is gone" in report(counts, 7, 2.2)
    assert "Nothing was lost" not in report(counts, 7, 2.2)
