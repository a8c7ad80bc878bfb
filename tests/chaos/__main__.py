"""A fault run (`make chaos`): faults at random times under load, and what they did, counted.

CHAOS_FAULTS sets the number of faults (default 1000), CHAOS_MINUTES the time after which no more happen (default: no
limit), CHAOS_SEED the seed of their choice and times, CHAOS_KINDS the kinds of faults, by comma (default all), and
CHAOS_REPORT the file into which the result is written. The exit code is 1 if a counter is not 0.
"""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.report import report
from tests.chaos.run import Run
from tests.chaos.world import own_world
from tests.own_engine import require_own_namespace


def main() -> int:
    require_own_namespace()
    # So that everything is stopped and removed then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    faults, seed = int(os.environ.get("CHAOS_FAULTS", "1000")), int(os.environ.get("CHAOS_SEED", "1"))
    minutes = float(os.environ.get("CHAOS_MINUTES", math.inf))
    kinds = [kind for kind in os.environ.get("CHAOS_KINDS", "").split(",") if kind] or list(FAULTS)
    with own_world() as world:
        run = Run(world, random.Random(seed), kinds)
        began = time.monotonic()
        try:
            run.go(faults, began + 60 * minutes)
        finally:
            text = report(run.counts, seed, (time.monotonic() - began) / 60)
            print(f"\n{text}", flush=True)
            if file := os.environ.get("CHAOS_REPORT"):
                Path(file).write_text(text)
        return 1 if run.counts.failed else 0


if __name__ == "__main__":
    sys.exit(main())
