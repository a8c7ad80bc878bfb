"""What a fault run counts, and how it is printed."""

from __future__ import annotations

import statistics
import threading
from collections import Counter
from dataclasses import dataclass, field

#: Each must be 0 at the end of a run.
COUNTERS = ("lost", "leaked", "doubled", "missing", "misreported")
_COLUMNS = ("fault", "times", *COUNTERS, "recovered", "true after s: median", "most")


@dataclass
class Counts:
    """The counters of a run, each by the kind of the fault after which it was counted. Thread-safe."""

    times: Counter[str] = field(default_factory=Counter)
    #: Sessions that an admin's recovery brought back.
    recovered: Counter[str] = field(default_factory=Counter)
    counters: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in COUNTERS})
    #: Seconds from the end of the fault until every state that the service shows is true.
    seconds: dict[str, list[float]] = field(default_factory=dict)
    #: What was counted, in words.
    notes: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, counter: str, fault: str, names: str, note: str) -> None:
        """Count one more of a counter. `names` are all faults that have just happened."""
        with self._lock:
            self.counters[counter][fault] += 1
            self.notes.append(f"{counter} after {names}: {note}")
            print(self.notes[-1], flush=True)

    def brought_back(self, fault: str) -> None:
        """Count a session that an admin's recovery brought back."""
        with self._lock:
            self.recovered[fault] += 1

    def took(self, fault: str, times: int, seconds: float) -> None:
        """Note how long it took, after this number of faults, until the state shown was true."""
        with self._lock:
            self.times[fault] += times
            self.seconds.setdefault(fault, []).append(seconds)

    @property
    def failed(self) -> bool:
        return any(counter.total() for counter in self.counters.values())

    def table(self) -> str:
        """The counters by kind of fault, as a table in Markdown."""
        lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
        kinds = sorted(self.times | Counter({kind: 0 for counter in self.counters.values() for kind in counter}))
        for kind in kinds:
            lines.append(self._row(kind, [kind], self.times[kind]))
        lines.append(self._row("all", kinds, self.times.total()))
        return "\n".join(lines)

    def _row(self, title: str, kinds: list[str], times: int) -> str:
        seconds = [value for kind in kinds for value in self.seconds.get(kind, [])]
        cells = [title, str(times)]
        cells += [str(sum(self.counters[name][kind] for kind in kinds)) for name in COUNTERS]
        cells.append(str(sum(self.recovered[kind] for kind in kinds)))
        cells += [f"{statistics.median(seconds):.1f}", f"{max(seconds):.1f}"] if seconds else ["", ""]
        return "| " + " | ".join(cells) + " |"
