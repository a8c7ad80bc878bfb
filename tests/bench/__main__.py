"""`make bench`: each figure a ratio against its reference, taken in turns in one run; bounded in count and time."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main() -> None:
    """Run the benchmarks named on the command line, or all: the modules `bench_*.py` beside this file."""
    names = sys.argv[1:] or sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
    for name in names:
        print(f"== {name.removeprefix('bench_')}", flush=True)
        importlib.import_module(f"tests.bench.{name}").main()


if __name__ == "__main__":
    main()
