"""Measures live events: insert to arrival with 100 viewers of a session, deliveries a second, and memory for a viewer.

The service sends them through the edge, as to browsers. The database is written directly, as a launch would.
"""

from __future__ import annotations

import asyncio
import time
from uuid import UUID, uuid4

import psutil
import psycopg
from psycopg.types.json import Jsonb

from sandbox.events.store import CHANNEL
from sandbox.sessions.store import REPLICA_LOCK
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.bench import load
from tests.bench.measure import p50, p99, print_durations, print_ratio
from tests.bench.viewers import Viewers, watching
from tests.bench.world import world

VIEWERS = 100
EVENTS = 200
PAUSE_SECONDS = 0.05
RATE_SECONDS = 5.0
BATCH = 50
#: The replica that owns the session: the benchmark, which holds its lock. The service leaves its launch alone.
OWNER = 2_000_000_000
_SESSION = """
    INSERT INTO sandbox_sessions (session_id, user_id, runtime_type, pipeline_run_id, work, owner, lease_until)
    VALUES (%s, 'viewed', 'python312', 'r', 'launch', %s, NOW() + INTERVAL '1 day')
"""
_SEQ = "UPDATE sandbox_sessions SET last_seq = last_seq + %s WHERE session_id = %s RETURNING last_seq"
_EVENT = "INSERT INTO session_events (session_id, seq, run_id, type, data) VALUES (%s, %s, %s, 'log', %s)"


def main() -> None:
    asyncio.run(_measure())


async def _measure() -> None:
    async with world() as here:
        await asyncio.to_thread(_compare, here.service, here.dsn)


def _compare(service: Service, dsn: str) -> None:
    assert service.process is not None
    process = psutil.Process(service.process.pid)
    with psycopg.connect(dsn, autocommit=True) as connection:
        log = _Log(connection)
        request = load.get(f"/api/v1/sessions/{log.session_id}/events", Authorization=f"Bearer {ADMIN_TOKEN}", Host="x")
        address = ("127.0.0.1", service.port)
        with watching(address, request, 1):
            pass  # what the first stream needs once is there
        time.sleep(1)
        before = process.memory_info().rss
        with watching(address, request, VIEWERS) as viewers:
            used = (process.memory_info().rss - before) / 1024
            viewers.arrived()
            _latency(log, viewers)
            _rate(log, viewers, process)
            print_ratio("KiB of the service's memory for a viewer", used / VIEWERS, "34 or less")


class _Log:
    """The log of a session whose launch goes on."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self.session_id: UUID = uuid4()
        connection.execute("SELECT pg_advisory_lock(%s, %s)", (REPLICA_LOCK, OWNER))
        connection.execute(_SESSION, (self.session_id, OWNER))
        self.append(1)

    def append(self, count: int) -> None:
        """Append so many lines in one transaction."""
        connection = self._connection
        line = Jsonb({"role": "main", "stream": "stdout", "line": "x" * 100, "inserted": time.time_ns()})
        with connection.transaction(), connection.cursor() as cursor:
            row = cursor.execute(_SEQ, (count, self.session_id)).fetchone()
            assert row is not None
            first = row[0] - count + 1
            run = uuid4()
            cursor.executemany(_EVENT, [(self.session_id, first + number, run, line) for number in range(count)])
            cursor.execute("SELECT pg_notify(%s, %s)", (CHANNEL, str(self.session_id)))


def _latency(log: _Log, viewers: Viewers) -> None:
    for _ in range(EVENTS):
        log.append(1)
        time.sleep(PAUSE_SECONDS)
    time.sleep(1)
    delays = sorted(viewers.arrived())
    assert len(delays) == EVENTS * VIEWERS, len(delays)
    print_durations(f"insert to arrival, {VIEWERS} viewers", delays)
    print_ratio("p50, ms", p50(delays) * 1000, "under 5")
    print_ratio("p99, ms", p99(delays) * 1000, "under 20")


def _rate(log: _Log, viewers: Viewers, process: psutil.Process) -> None:
    """Append as fast as the viewers follow."""
    used, began, delivered = _processor_seconds(process), time.perf_counter(), 0
    while (seconds := time.perf_counter() - began) < RATE_SECONDS:
        log.append(BATCH)
        arrived = 0
        while arrived < BATCH * VIEWERS:
            arrived += len(viewers.arrived())
        delivered += arrived
    print_ratio("deliveries a second, elapsed time", delivered / seconds, "(for comparison)")
    print_ratio("deliveries for a processor second", delivered / (_processor_seconds(process) - used), "50,000 or more")


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
