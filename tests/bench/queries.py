"""Response times of saved queries and filtered lists, and the plans that PostgreSQL used."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.acceptance.service import Service
from tests.bench import plans
from tests.bench.cases import USERS, Case, cases
from tests.bench.world import client, percentile

ROUNDS = 40
GOAL_MS = 50.0
#: Pages whose plans are read: the first one and one that starts at a cursor.
_PLANNED_PAGES = 2


async def measure(service: Service, dsn: str, logs: Path) -> None:
    measured = cases()
    async with client(service) as http:
        tokens = {user: await _token(http, user) for user in USERS}
        await _timed(http, tokens, measured[0], ROUNDS)  # the first requests open the connections
        timed = [await _timed(http, tokens, case, ROUNDS) for case in measured]
        with plans.PlanLog(dsn, logs) as log:
            for case in measured:
                log.mark(case)
                await _timed(http, tokens, case, _PLANNED_PAGES)
            planned = await asyncio.to_thread(log.read)
    partitions = _partitions(dsn)
    print(f"  {'p50':>7} {'p95 ms':>7}  {'rows':>4}  what  [statements of two pages, 8 KiB read; partitions; indexes]")
    for (case, found), (times, items) in zip(planned, timed, strict=True):
        print(
            f"  {percentile(times, 50):7.1f} {percentile(times, 95):7.1f}  {items:4}  {case}"
            f"  [{_summary(case, found, partitions.get(case.table, 1))}]"
        )
    slow = sorted(((percentile(times, 95), str(case)) for case, (times, _) in zip(measured, timed, strict=True)))[-5:]
    print(f"load of the machine during the run, on {os.cpu_count()} processors: {os.getloadavg()[1]:.1f}")
    all_times = [value for times, _ in timed for value in times]
    sequential = {name for _, found in planned for name in found.sequential}
    print(f"{len(measured)} saved queries and lists; all responses: p50 {percentile(all_times, 50):.1f} ms,", end=" ")
    print(f"p95 {percentile(all_times, 95):.1f} ms, p99 {percentile(all_times, 99):.1f} ms")
    print("sequential scans of rows:", ", ".join(sorted(sequential)) or "none", f"(small tables: {_SMALL})")
    for p95, name in reversed(slow):
        print(f"  slowest: {p95:.1f} ms  {name}")
    print(f"slowest p95 to {GOAL_MS:.0f} ms: ratio {slow[-1][0] / GOAL_MS:.2f} (goal: 1 or less)")


_SMALL = ", ".join(sorted(plans.SMALL))


async def _token(http: httpx.AsyncClient, user: str) -> str:
    answer = await http.post("/api/v1/tokens", json={"user_id": user, "role": "user", "expires_in_seconds": 86_400})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


async def _timed(http: httpx.AsyncClient, tokens: dict[str, str], case: Case, rounds: int) -> tuple[list[float], int]:
    """Milliseconds of each response, and the most items in one."""
    times, items = [], 0
    headers = {"Authorization": f"Bearer {tokens[case.user]}"} if case.user else {}
    cursor = None
    for _ in range(rounds):
        params = case.params | ({"cursor": cursor} if cursor else {})
        began = time.perf_counter()
        answer = await http.get(f"/api/v1/{case.path}", params=params, headers=headers)
        times.append(1000 * (time.perf_counter() - began))
        assert answer.status_code in (200, 404), answer.text
        page: dict[str, Any] = answer.json()
        items = max(items, len(page.get("items", page.get("spans", ()))))
        # Lists are paged through, because later pages have to be as fast as the first.
        cursor = page.get("next_cursor")
    return times, items


def _partitions(dsn: str) -> dict[str, int]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT inhparent::regclass::text, count(*) FROM pg_inherits GROUP BY 1").fetchall()
        return dict(rows)


def _summary(case: Case, found: plans.Plans, partitions: int) -> str:
    parts = [f"{found.statements}, {found.buffers}"]
    if partitions > 1:
        parts.append(f"{len({name for name in found.partitions if name.startswith(case.table)})} of {partitions}")
    parts.append(" ".join(sorted(found.indexes)) or "no index")
    if found.empty:
        parts.append(f"{len(found.empty)} empty ones read sequentially")
    if rows := sorted(found.sequential):
        parts.append(f"{'small, ' if case.table in plans.SMALL else ''}SEQUENTIAL: {' '.join(rows)}")
    return "; ".join(parts)
