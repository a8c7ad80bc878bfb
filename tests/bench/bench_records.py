"""The records' speed; questions are asked of LOGS and SPANS rows (10000000 and 2000000 are the full size).

BENCH_HOME is a folder to keep the database in: it is filled in the first run, and in later ones only asked.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from tests.bench import intake, queries
from tests.bench.rows import fill, forget_requests
from tests.bench.world import log_bodies, span_bodies, world

LOGS = int(os.environ.get("LOGS", "200000"))
SPANS = int(os.environ.get("SPANS", "50000"))
KEPT = os.environ.get("BENCH_HOME")
#: Of each kind, in each round of the intake. With fewer, too few other requests come meanwhile to tell a p99.
INTAKE = 200_000


def main() -> None:
    asyncio.run(_measure())


async def _measure() -> None:
    async with world(Path(KEPT) if KEPT else None) as here:
        if here.filled:
            await asyncio.to_thread(forget_requests, here.dsn)
        else:
            await intake.measure(here.service, here.dsn, "logs", "/v1/logs", log_bodies(INTAKE), INTAKE)
            await intake.measure(here.service, here.dsn, "traces", "/v1/traces", span_bodies(INTAKE), INTAKE)
            began = time.perf_counter()
            await asyncio.to_thread(fill, here.dsn, LOGS, SPANS)
            print(f"{LOGS:,} logs and {SPANS:,} spans made in {time.perf_counter() - began:.0f} s")
        await queries.measure(here.service, here.dsn, here.logs)
