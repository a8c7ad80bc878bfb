"""How fast the documented questions and the filtered lists are answered, and how PostgreSQL does it."""

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
WANTED_MS = 50.0
#: Pages whose plans are looked at: the first and one that starts where another ended.
_PLANNED_PAGES = 2


async def measure(service: Service, dsn: str, logs: Path) -> None:
    asked = cases()
    async with client(service) as http:
        tokens = {user: await _token(http, user) for user in USERS}
        await _timed(http, tokens, asked[0], ROUNDS)  # the first answers pay for connections
        taken = [await _timed(http, tokens, case, ROUNDS) for case in asked]
        with plans.PlanLog(dsn, logs) as log:
            for case in asked:
                log.mark(case)
                await _timed(http, tokens, case, _PLANNED_PAGES)
            planned = await asyncio.to_thread(log.read)
    partitions = _partitions(dsn)
    print(f"  {'p50':>7} {'p95 ms':>7}  {'rows':>4}  what  [statements of two pages, 8 KiB read; partitions; indexes]")
    for (case, found), (times, items) in zip(planned, taken, strict=True):
        print(
            f"  {percentile(times, 50):7.1f} {percentile(times, 95):7.1f}  {items:4}  {case}"
            f"  [{_told(case, found, partitions.get(case.table, 1))}]"
        )
    slow = sorted(((percentile(times, 95), str(case)) for case, (times, _) in zip(asked, taken, strict=True)))[-5:]
    print(f"load of the machine meanwhile, of {os.cpu_count()} processors: {os.getloadavg()[1]:.1f}")
    everything = [value for times, _ in taken for value in times]
    sequential = {name for _, found in planned for name in found.sequential}
    print(f"{len(asked)} questions and lists; of all answers p50 {percentile(everything, 50):.1f} ms,", end=" ")
    print(f"p95 {percentile(everything, 95):.1f} ms, p99 {percentile(everything, 99):.1f} ms")
    print("sequential scans of rows:", ", ".join(sorted(sequential)) or "none", f"(small tables: {_SMALL})")
    for p95, name in reversed(slow):
        print(f"  slowest: {p95:.1f} ms  {name}")
    print(f"slowest p95 to {WANTED_MS:.0f} ms: ratio {slow[-1][0] / WANTED_MS:.2f} (wanted: 1 or less)")


_SMALL = ", ".join(sorted(plans.SMALL))


async def _token(http: httpx.AsyncClient, user: str) -> str:
    answer = await http.post("/api/v1/tokens", json={"user_id": user, "role": "user", "expires_in_seconds": 86_400})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


async def _timed(http: httpx.AsyncClient, tokens: dict[str, str], case: Case, rounds: int) -> tuple[list[float], int]:
    """Milliseconds that each answer took, and the most items one had."""
    taken, items = [], 0
    headers = {"Authorization": f"Bearer {tokens[case.user]}"} if case.user else {}
    cursor = None
    for _ in range(rounds):
        params = case.params | ({"cursor": cursor} if cursor else {})
        began = time.perf_counter()
        answer = await http.get(f"/api/v1/{case.path}", params=params, headers=headers)
        taken.append(1000 * (time.perf_counter() - began))
        assert answer.status_code in (200, 404), answer.text
        page: dict[str, Any] = answer.json()
        items = max(items, len(page.get("items", page.get("spans", ()))))
        # Lists are paged through: every page has to be as fast as the first.
        cursor = page.get("next_cursor")
    return taken, items


def _partitions(dsn: str) -> dict[str, int]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT inhparent::regclass::text, count(*) FROM pg_inherits GROUP BY 1").fetchall()
        return dict(rows)


def _told(case: Case, found: plans.Plans, partitions: int) -> str:
    said = [f"{found.statements}, {found.buffers}"]
    if partitions > 1:
        said.append(f"{len({name for name in found.partitions if name.startswith(case.table)})} of {partitions}")
    said.append(" ".join(sorted(found.indexes)) or "no index")
    if found.empty:
        said.append(f"{len(found.empty)} empty ones read sequentially")
    if rows := sorted(found.sequential):
        said.append(f"{'small, ' if case.table in plans.SMALL else ''}SEQUENTIAL: {' '.join(rows)}")
    return "; ".join(said)
