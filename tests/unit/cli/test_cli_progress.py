"""Display of a launch's events."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from sandbox.cli.progress import LiveProgress, PlainProgress, print_failure, seconds, show
from sandbox.client import LaunchEvent, LaunchFailed
from sandbox.domain.stages import PROJECT_STAGES

FULL = [stage.value for stage in PROJECT_STAGES]


class Launch:
    """Creates events with consecutive numbers."""

    def __init__(self, run_id: str = "r1") -> None:
        self.run_id, self.seq = run_id, 0

    def __call__(self, kind: str, **data: Any) -> LaunchEvent:
        self.seq += 1
        return LaunchEvent.from_json(kind, {"seq": self.seq, "run_id": self.run_id, **data})

    def stage(self, name: str, state: str, total: int = 8, **data: Any) -> LaunchEvent:
        return self("stage", stage=name, state=state, index=FULL.index(name) + 1, total=total, **data)

    def log(self, line: str, role: str = "backend") -> LaunchEvent:
        return self("log", stage="dependencies", role=role, stream="stdout", line=line)


def _console(*, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=100, force_terminal=terminal, color_system=None, highlight=False)


def _text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _shown(live: LiveProgress) -> list[str]:
    console = _console()
    console.print(live)
    return [line.rstrip() for line in _text(console).splitlines() if line.strip()]


def test_plain_progress_prints_a_line_per_event() -> None:
    launch, console = Launch(), _console()
    progress = PlainProgress(console)
    for event in (
        launch.stage("plan", "started"),
        launch.stage("plan", "completed", duration_ms=12),
        launch.stage("network", "skipped"),
        launch.log("[red]Collecting[/red] \x1b[31mx\x1b[0m"),
        launch("status", status="running", previous="creating"),
        launch("preview", url="http://p/", port=5173, role="frontend"),
        launch("problem", code="port_not_opened", message="nothing\x1b[2J listens", hint="", stage="health"),
        launch("end", status="running"),
    ):
        progress(event)
    assert _text(console).splitlines() == [
        "[1/8] plan started",
        "[1/8] plan completed (12 ms)",
        "[2/8] network skipped",
        "    backend │ [red]Collecting[/red] x",
        "preview: http://p/",
        "problem: nothing [2J listens [port_not_opened]",
    ]


def test_live_progress_shows_all_stages() -> None:
    launch, live = Launch(), LiveProgress()
    assert [line.strip() for line in _shown(live)] == FULL
    live(launch.stage("plan", "completed", duration_ms=12))
    live(launch.stage("network", "skipped", duration_ms=0))
    live(launch.stage("containers", "failed", duration_ms=61_500))
    live(launch.stage("workspace", "started"))
    for number in range(20):
        live(launch.log(f"added {number} packages", role="frontend"))
    shown = _shown(live)
    assert [line.split()[:2] for line in shown[:3]] == [["✓", "plan"], ["-", "network"], ["✗", "containers"]]
    assert shown[0].endswith("12 ms")
    assert shown[2].endswith("1 min 01 s")
    assert "workspace" in shown[3]
    assert [line.strip() for line in shown[8:]] == [f"frontend │ added {n} packages" for n in range(12, 20)]


def test_a_blank_session_has_four_stages() -> None:
    launch, live = Launch(), LiveProgress()
    live(launch.stage("plan", "completed", total=4, duration_ms=1))
    shown = _shown(live)
    assert shown[0].split() == ["✓", "plan", "1", "ms"]
    assert [line.strip() for line in shown[1:]] == FULL[1:4]


def test_a_new_run_resets_the_view() -> None:
    live = LiveProgress()
    live(Launch("r1").stage("plan", "failed", duration_ms=5))
    assert "✗" in "".join(_shown(live))
    live(Launch("r2").stage("plan", "started"))
    assert "✗" not in "".join(_shown(live))


def test_a_long_line_and_control_sequences_do_not_break_the_display() -> None:
    launch, live = Launch(), LiveProgress()
    live(launch.stage("dependencies", "started"))
    live(launch.log("x" * 10_000 + "\x1b[2J\x1b]0;title\x07\rend\x08"))
    shown = _shown(live)
    assert len(shown) == 9
    assert all(len(line) <= 100 for line in shown)
    assert all(char.isprintable() for line in shown for char in line)


def test_a_terminal_gets_the_live_view_and_a_pipe_gets_lines() -> None:
    for terminal in (True, False):
        launch, console = Launch(), _console(terminal=terminal)
        with show(console) as progress:
            progress(launch.stage("plan", "started"))
            progress(launch.stage("plan", "completed", duration_ms=3))
        assert isinstance(progress, LiveProgress) is terminal
        assert "plan" in _text(console)


def test_quiet_shows_nothing() -> None:
    console = _console()
    with show(console, quiet=True) as progress:
        progress(Launch().stage("plan", "started"))
    assert _text(console) == ""


def test_a_failure_shows_cause_output_hint_and_next_commands() -> None:
    console = _console()
    lines = [f"line {n}" for n in range(30)]
    failure = LaunchFailed(
        "3f2a0000-1",
        "dependency_install_failed",
        "npm ended with 1:\nnpm error 404\x1b[2J",
        hint="Fix it.",
        stage="dependencies",
        log_tail=lines,
    )
    print_failure(console, failure)
    shown = _text(console).splitlines()
    assert shown[0] == "The launch failed at dependencies: npm ended with 1:  [dependency_install_failed]"
    assert shown[1] == "    npm error 404 [2J"
    assert shown[2:17] == [f"  │ line {n}" for n in range(15, 30)]
    assert shown[17] == "hint: Fix it."
    assert "sandbox kill 3f2a0000" in shown[18]


@pytest.mark.parametrize(("ms", "text"), [(0, "0 ms"), (999, "999 ms"), (4_240, "4.2 s"), (65_000, "1 min 05 s")])
def test_durations(ms: int, text: str) -> None:
    assert seconds(ms) == text
