"""The records' speed, with LOGS and SPANS rows (10000000 and 2000000 are the full size)."""

from __future__ import annotations

import asyncio
import os
import time

from tests.bench import intake, queries
from tests.bench.world import fill, log_bodies, span_bodies, world

LOGS = int(os.environ.get("LOGS", "200000"))
SPANS = int(os.environ.get("SPANS", "50000"))
#: Intake is measured over as many, and no more than these.
INTAKE_LOGS, INTAKE_SPANS = min(LOGS, 200_000), min(SPANS, 100_000)


def main() -> None:
    asyncio.run(_measure())


async def _measure() -> None:
    async with world() as (service, dsn):
        await intake.measure(service, dsn, "logs", "/v1/logs", log_bodies(INTAKE_LOGS), INTAKE_LOGS)
        await intake.measure(service, dsn, "traces", "/v1/traces", span_bodies(INTAKE_SPANS), INTAKE_SPANS)
        began = time.perf_counter()
        await asyncio.to_thread(fill, dsn, LOGS, SPANS)
        print(f"{LOGS:,} logs and {SPANS:,} spans made in {time.perf_counter() - began:.0f} s; p95 of each question:")
        await queries.measure(service)
        await asyncio.to_thread(queries.explain, dsn)
