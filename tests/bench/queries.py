"""How fast the documented questions and the filtered lists are answered, and how PostgreSQL does it."""

from __future__ import annotations

import time
from typing import Any

import httpx
import psycopg

from sandbox.telemetry.questions.store import QUESTIONS
from tests.acceptance.service import Service
from tests.bench.world import client, percentile

ROUNDS = 20

LISTS: list[tuple[str, dict[str, str]]] = [
    ("logs", {}),
    ("logs", {"level": "ERROR"}),
    ("logs", {"level": "CRITICAL"}),
    ("logs", {"service": "service-7"}),
    ("logs", {"service": "nobody"}),
    ("logs", {"request_id": "request-777"}),
    ("logs", {"user_id": "user-77"}),
    ("logs", {"level": "ERROR", "service": "service-7"}),
    ("logs", {"q": "payment"}),
    ("logs", {"q": "order 1234"}),
    ("logs", {"q": "nowhere"}),
    ("traces", {}),
    ("traces", {"service_name": "service-7"}),
    ("traces", {"operation_name": "GET /cart"}),
    ("traces", {"status": "error"}),
    ("traces", {"trace_id": f"{777:032x}"}),
    ("test-results", {"test_type": "unit"}),
    ("test-results", {"status": "completed"}),
    ("coverage", {"component": "component-7"}),
    ("alerts", {"status": "active"}),
    ("alerts", {"severity": "critical"}),
    ("agents", {"category": "qa"}),
]

_PLANS = [
    "SELECT * FROM logs WHERE timestamp > NOW() - INTERVAL '1 hour' AND level IN ('ERROR', 'CRITICAL')"
    " ORDER BY timestamp DESC LIMIT 50",
    "SELECT * FROM logs WHERE level = 'ERROR' AND timestamp >= CURRENT_DATE - 2 AND timestamp < CURRENT_DATE - 1"
    " ORDER BY timestamp DESC, log_id DESC LIMIT 50",
    "SELECT * FROM traces WHERE duration_ms > 1000 AND start_time > NOW() - INTERVAL '24 hours'"
    " ORDER BY duration_ms DESC LIMIT 20",
]


async def _timed(http: httpx.AsyncClient, path: str, params: dict[str, str], rounds: int) -> tuple[float, int]:
    taken, items = [], 0
    cursor = None
    for _ in range(rounds):
        began = time.perf_counter()
        answer = await http.get(path, params=params | ({"cursor": cursor} if cursor else {}))
        taken.append(1000 * (time.perf_counter() - began))
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        items = max(items, len(page["items"]))
        # Lists are paged through: every page has to be as fast as the first.
        cursor = page.get("next_cursor")
    return percentile(taken, 95), items


async def measure(service: Service) -> None:
    slowest = 0.0
    async with client(service) as http:
        for name in QUESTIONS:
            p95, items = await _timed(http, f"/api/v1/analytics/{name}", {}, ROUNDS)
            slowest = max(slowest, p95)
            print(f"  {p95:8.1f} ms  analytics/{name} ({items} rows)")
        for path, params in LISTS:
            p95, items = await _timed(http, f"/api/v1/{path}", params, ROUNDS)
            slowest = max(slowest, p95)
            print(f"  {p95:8.1f} ms  {path} {params or ''} ({items} rows a page)")
    print(f"slowest p95: {slowest:.1f} ms; ratio to 50 ms: {slowest / 50:.2f}")


def explain(dsn: str) -> None:
    """Which partitions the plans leave out, and that none reads a whole one."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for query in _PLANS:
            plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN ANALYZE {query}"))
            scans = [line.strip() for line in plan.splitlines() if "Scan" in line and "never executed" not in line]
            sequential = [line for line in scans if "Seq Scan" in line and "rows=0" not in line.split("actual")[-1]]
            print(f"plan: {len(scans)} scans, sequential ones of rows: {sequential or 'none'}: {query[:70]}…")
