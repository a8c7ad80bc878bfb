"""Runs benchmarks (`make bench`). Each prints ratios to a reference that is measured alternately in the same run.

`--keep` stores the ratios as those to compare with, `--compare` prints which differ notably from the stored ones.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from tests.bench.results import RESULTS

KEPT = Path(__file__).with_name("kept.json")


def main() -> None:
    """Run the benchmarks that are named on the command line, or all modules `bench_*.py` of this folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as bench_exec; default all")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--compare", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.names or sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py")):
        benchmark = name.removeprefix("bench_")
        print(f"== {benchmark}", flush=True)
        RESULTS.begin(benchmark)
        importlib.import_module(f"tests.bench.{name}").main()
    if arguments.compare:
        print("== compared with what was kept", flush=True)
        RESULTS.compare(KEPT)
    if arguments.keep:
        RESULTS.keep(KEPT)


if __name__ == "__main__":
    main()
