"""Throughput of the intake, and response times of queries and lists over LOGS log lines and SPANS spans.

The full size is LOGS=10000000 SPANS=2000000. With BENCH_HOME the database is stored in that folder: the first run fills
it, later runs only measure queries.
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
FOLDER = os.environ.get("BENCH_HOME")
#: Records of each kind in each round of the intake; fewer take too short a time for a p99 of other requests.
INTAKE = 200_000


def main() -> None:
    asyncio.run(_measure())


async def _measure() -> None:
    async with world(Path(FOLDER) if FOLDER else None) as here:
        if here.filled:
            await asyncio.to_thread(forget_requests, here.dsn)
        else:
            await intake.measure(here.service, here.dsn, "logs", "/v1/logs", log_bodies(INTAKE), INTAKE)
            await intake.measure(here.service, here.dsn, "traces", "/v1/traces", span_bodies(INTAKE), INTAKE)
            began = time.perf_counter()
            await asyncio.to_thread(fill, here.dsn, LOGS, SPANS)
            print(f"{LOGS:,} logs and {SPANS:,} spans generated in {time.perf_counter() - began:.0f} s")
        await queries.measure(here.service, here.dsn, here.logs)
