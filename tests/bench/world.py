"""Sets up what benchmarks run in: a service with its own PostgreSQL, and OTLP requests of a busy platform."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from sandbox.db.embedded import EmbeddedPostgres
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.bench import plans
from tests.bench.rows import WORDS

HEADERS = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
#: Records per request, the default of the OpenTelemetry SDKs.
BATCH = 512


@dataclass(frozen=True, slots=True)
class World:
    service: Service
    dsn: str
    #: The folder of PostgreSQL's log files.
    logs: Path
    #: Whether a previous run has left records in the database.
    filled: bool


#: The service neither evaluates alerts nor removes old records during a benchmark.
_QUIET = {
    "SANDBOX_LOG_LEVEL": "WARNING",
    "SANDBOX_ALERT_INTERVAL_SECONDS": "86400",
    **{f"SANDBOX_RETENTION_{kind}_DAYS": "3650" for kind in ("LOGS", "DEBUG_LOGS", "TRACES")},
}


@asynccontextmanager
async def world(folder: Path | None = None, *, env: Mapping[str, str] | None = None) -> AsyncIterator[World]:
    """Start a service, with these environment variables, and its database.

    They are removed at the end, except with `folder`, which is used again.
    """
    home = folder or Path(tempfile.mkdtemp(prefix="sbx-bench-"))
    home.chmod(0o711)  # PostgreSQL's user must be able to pass through; otherwise its data is put elsewhere
    service = Service(home, env=_QUIET | dict(env or {}))
    postgres = EmbeddedPostgres(home)
    try:
        dsn = await postgres.start()
        plans.prepare(dsn)
        await asyncio.to_thread(service.start)
        cluster = (await postgres.status()).folder
        assert cluster is not None
        with psycopg.connect(dsn) as connection:
            filled = connection.execute("SELECT EXISTS (SELECT FROM coverage)").fetchone() == (True,)
        yield World(service, dsn, cluster / "data" / "log", filled)
    finally:
        await asyncio.to_thread(service.stop)
        await asyncio.to_thread(service.stop_edge)
        await postgres.stop()
        if folder is None:
            shutil.rmtree(home, ignore_errors=True)


def client(service: Service) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=service.url, headers=HEADERS, timeout=60, trust_env=False)


def percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def _attribute(key: str, value: str | int) -> KeyValue:
    return KeyValue(
        key=key, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value)
    )


def log_bodies(rows: int) -> list[bytes]:
    """Return bodies of OTLP export requests with this number of log records in total."""
    chance = random.Random(4)
    bodies = []
    for first in range(0, rows, BATCH):
        request = ExportLogsServiceRequest()
        group = request.resource_logs.add()
        group.resource.attributes.append(_attribute("service.name", f"service-{first // BATCH % 8}"))
        scope = group.scope_logs.add()
        now = time.time_ns()
        for number in range(first, min(first + BATCH, rows)):
            record = scope.log_records.add(
                time_unix_nano=now + number, severity_number=chance.choice((5, 9, 9, 9, 13, 17))
            )
            record.body.string_value = (
                f"{' '.join(chance.choices(WORDS, k=8))} {chance.randrange(10**9)} took {number} ms"
            )
            record.attributes.extend(
                (
                    _attribute("request_id", f"request-{number // 5}"),
                    _attribute("http.method", "POST"),
                    _attribute("http.status_code", 200),
                    _attribute("endpoint", f"/api/{chance.choice(WORDS)}"),
                )
            )
        bodies.append(request.SerializeToString())
    return bodies


def span_bodies(rows: int) -> list[bytes]:
    """Return bodies of OTLP export requests with this number of spans in total."""
    chance = random.Random(5)
    bodies = []
    for first in range(0, rows, BATCH):
        request = ExportTraceServiceRequest()
        group = request.resource_spans.add()
        group.resource.attributes.append(_attribute("service.name", f"service-{first // BATCH % 8}"))
        scope = group.scope_spans.add()
        now = time.time_ns()
        for number in range(first, min(first + BATCH, rows)):
            span = scope.spans.add(
                trace_id=(number // 6 + 1).to_bytes(16, "big"),
                span_id=(number + 1).to_bytes(8, "big"),
                name=f"GET /{chance.choice(WORDS)}",
                kind=2,
                start_time_unix_nano=now + number,
                end_time_unix_nano=now + number + chance.randrange(10**9),
            )
            span.attributes.extend(
                (
                    _attribute("http.method", "GET"),
                    _attribute("http.url", f"/api/{number}"),
                    _attribute("http.status_code", 200),
                )
            )
        bodies.append(request.SerializeToString())
    return bodies
