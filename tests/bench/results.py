"""What benchmarks have measured: kept in a file, and compared with what was kept before.

Only ratios and rates are compared: durations of another day, or of another machine, say nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

#: The change from which on a figure counts as slower: below that, two runs on one machine differ by chance.
NOTABLE = 1.25


class Results:
    """The figures of one run, by benchmark and name."""

    def __init__(self) -> None:
        self._benchmark = ""
        self._figures: dict[str, dict[str, float]] = {}

    def begin(self, benchmark: str) -> None:
        """What is added from here on belongs to this benchmark."""
        self._benchmark = benchmark

    def add(self, name: str, value: float) -> None:
        # A benchmark may print the same name for several of its parts, always in the same order.
        figures = self._figures.setdefault(self._benchmark, {})
        same = sum(known == name or known.startswith(f"{name} (") for known in figures)
        figures[f"{name} ({same + 1})" if same else name] = value

    def keep(self, file: Path) -> None:
        """Write the figures over those of the same benchmarks in the file."""
        kept = _read(file) | self._figures
        file.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")

    def compare(self, file: Path) -> None:
        """Print what has changed notably since the figures in the file were kept."""
        kept = _read(file)
        changed = False
        for benchmark, figures in self._figures.items():
            for name, value in figures.items():
                before = kept.get(benchmark, {}).get(name)
                if before and value and not 1 / NOTABLE < value / before < NOTABLE:
                    changed = True
                    print(f"  {benchmark}: {name}: {before:.3f} -> {value:.3f} ({value / before - 1:+.0%})", flush=True)
        if not changed:
            print(f"  no figure differs from the kept one by a factor of {NOTABLE}")


def _read(file: Path) -> dict[str, dict[str, float]]:
    return json.loads(file.read_text()) if file.exists() else {}


#: The figures of this process.
RESULTS = Results()
