"""Shows the progress of a launch: redrawn in place on a terminal, line by line elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from sandbox.cli.output import plain
from sandbox.cli.sanitise import coloured
from sandbox.client import LaunchEvent, LaunchFailed
from sandbox.domain.events import EventType
from sandbox.domain.stages import BLANK_STAGES, PROJECT_STAGES, StageState

_TAIL_LINES = 8
_MARKS = {
    StageState.COMPLETED: ("✓", "green"),
    StageState.FAILED: ("✗", "bold red"),
    StageState.SKIPPED: ("-", "dim"),
}


@dataclass(slots=True)
class StageView:
    """The state of one stage."""

    state: StageState | None = None
    duration_ms: int | None = None
    #: Value of `time.monotonic()` at the start.
    started: float = 0.0


@dataclass(slots=True)
class LaunchView:
    """The state of a launch, computed from its events. A new run resets it."""

    stages: dict[str, StageView] = field(default_factory=lambda: {name.value: StageView() for name in PROJECT_STAGES})
    tail: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))
    run_id: str | None = None

    def apply(self, event: LaunchEvent) -> None:
        """Update the state with the next event."""
        if event.run_id != self.run_id:
            self.run_id = event.run_id
            self.stages = {name.value: StageView() for name in PROJECT_STAGES}
            self.tail.clear()
        if event.type is EventType.STAGE:
            self._stage(event.data)
        elif event.type is EventType.LOG:
            self.tail.append((str(event.data.get("role") or ""), str(event.data.get("line", ""))))

    def _stage(self, data: dict[str, Any]) -> None:
        if data.get("total") == len(BLANK_STAGES):
            self.stages = {name.value: self.stages.get(name.value, StageView()) for name in BLANK_STAGES}
        view = self.stages.setdefault(str(data["stage"]), StageView())
        view.state = StageState(data["state"])
        if view.state is StageState.STARTED:
            view.started = time.monotonic()
            self.tail.clear()
        view.duration_ms = data.get("duration_ms")


def seconds(milliseconds: float) -> str:
    """Format a duration: 35 ms, 4.2 s, 1 min 05 s."""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds // 60_000:.0f} min {milliseconds % 60_000 // 1000:02.0f} s"


def _log_line(role: str, line: str) -> Text:
    text = Text(f"{plain(role)} │ " if role else "│ ", style="dim")
    text.append_text(_in_one_line(line))
    return text


def _in_one_line(line: str) -> Text:
    """The end of a line that a program printed, with its colours. What it overprinted stands before the rest."""
    return Text.from_ansi(coloured(line).replace("\n", " ")[-500:])


class Progress(Protocol):
    """A function that shows an event."""

    def __call__(self, event: LaunchEvent, /) -> None: ...


class LiveProgress:
    """Shows all stages, redrawn in place, and below them the last lines of output of the running stage."""

    def __init__(self) -> None:
        self.view = LaunchView()
        self._spinner = Spinner("dots", style="cyan")

    def __call__(self, event: LaunchEvent) -> None:
        self.view.apply(event)

    def __rich__(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=2)
        grid.add_column(min_width=14)
        grid.add_column(justify="right")
        running = False
        for name, stage in self.view.stages.items():
            if stage.state is StageState.STARTED:
                running = True
                took = seconds((time.monotonic() - stage.started) * 1000)
                grid.add_row(self._spinner, Text(name, style="bold"), Text(took, style="cyan"))
            elif stage.state is None:
                grid.add_row("", Text(name, style="dim"), "")
            else:
                mark, style = _MARKS[stage.state]
                took = "" if stage.duration_ms is None else seconds(stage.duration_ms)
                grid.add_row(Text(mark, style=style), Text(name), Text(took, style="dim"))
        if not running or not self.view.tail:
            return grid
        lines = [_log_line(role, line) for role, line in self.view.tail]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(grid, Padding(Group(*lines), (1, 0, 0, 3)))


class PlainProgress:
    """Prints a line for each event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, event: LaunchEvent) -> None:
        line = describe(event)
        if line is not None:
            self._console.print(line, soft_wrap=True)


def describe(event: LaunchEvent) -> Text | None:
    """Return an event as one line, or None for events that do not concern the user."""
    data = event.data
    if event.type is EventType.STAGE:
        state = StageState(data["state"])
        where = f"[{data.get('index', '?')}/{data.get('total', '?')}] {data['stage']}"
        took = f" ({seconds(data['duration_ms'])})" if data.get("duration_ms") is not None else ""
        style = _MARKS[state][1] if state in _MARKS else "bold"
        return Text(f"{where} {state.value}{took}", style=style)
    if event.type is EventType.LOG:
        return Text("    ").append_text(_log_line(str(data.get("role") or ""), str(data.get("line", ""))))
    if event.type is EventType.PROBLEM:
        return Text(f"problem: {plain(str(data.get('message', '')))} [{data.get('code')}]", style="red")
    if event.type is EventType.PREVIEW:
        return Text(f"preview: {data.get('url')}", style="green")
    return None


def _show_nothing(_: LaunchEvent, /) -> None:
    pass


@contextmanager
def show(console: Console, *, quiet: bool = False) -> Iterator[Progress]:
    """Provide a function that shows the events it is called with on this console. With `quiet` it shows nothing."""
    if quiet:
        yield _show_nothing
    elif console.is_terminal:
        live = LiveProgress()
        with Live(live, console=console, refresh_per_second=10, transient=False):
            yield live
    else:
        yield PlainProgress(console)


def print_failure(console: Console, failure: LaunchFailed) -> None:
    """Print why a launch failed or a session was lost: the cause, the last lines of output, and what to do."""
    headline = f"The launch failed at {failure.stage}" if failure.stage else "The session was lost"
    cause, *details = failure.message.splitlines() or [""]
    console.print(Text(f"{headline}: {plain(cause)}  [{failure.code}]", style="bold red"), soft_wrap=True)
    for line in details:
        console.print(Text(f"    {plain(line)}", style="red"), soft_wrap=True)
    for line in failure.log_tail[-15:]:
        console.print(Text("  │ ", style="red").append_text(_in_one_line(line)), soft_wrap=True)
    if failure.hint:
        console.print(Text.assemble(("hint: ", "bold cyan"), plain(failure.hint)), soft_wrap=True)
    short = failure.session_id[:8]
    console.print(
        Text(
            f"The session still exists: sandbox relaunch {short} · sandbox shell {short} · sandbox kill {short}", "dim"
        ),
        soft_wrap=True,
    )
