"""What the benchmark runs in: a PostgreSQL and a service of its own, and rows as a busy platform has them."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psycopg
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from sandbox.db.embedded import EmbeddedPostgres
from tests.acceptance.service import ADMIN_TOKEN, Service

HEADERS = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
#: Records of one request: the OpenTelemetry SDKs' default.
BATCH = 512
_WORDS = (
    *("payment", "order", "user", "cart", "session", "token", "cache", "queue"),
    *("worker", "retry", "upload", "invoice", "stock", "search", "index", "email"),
)


@asynccontextmanager
async def world() -> AsyncIterator[tuple[Service, str]]:
    """A running service and its database's URL; nothing is left of it."""
    home = Path(tempfile.mkdtemp(prefix="sbx-bench-"))
    service = Service(home, env={"SANDBOX_LOG_LEVEL": "WARNING"})
    try:
        dsn = await EmbeddedPostgres(home).start()
        await asyncio.to_thread(service.start)
        yield service, dsn
    finally:
        await asyncio.to_thread(service.stop)
        await EmbeddedPostgres(home).stop()
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
    """Export requests of so many log records altogether."""
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
                f"{' '.join(chance.choices(_WORDS, k=8))} {chance.randrange(10**9)} took {number} ms"
            )
            record.attributes.extend(
                (
                    _attribute("request_id", f"request-{number // 5}"),
                    _attribute("http.method", "POST"),
                    _attribute("http.status_code", 200),
                    _attribute("endpoint", f"/api/{chance.choice(_WORDS)}"),
                )
            )
        bodies.append(request.SerializeToString())
    return bodies


def span_bodies(rows: int) -> list[bytes]:
    """Export requests of so many spans altogether."""
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
                name=f"GET /{chance.choice(_WORDS)}",
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


_PARTITION = """
DO $$ DECLARE day DATE; parent TEXT; part TEXT; BEGIN
  FOREACH parent IN ARRAY ARRAY['logs', 'traces'] LOOP
    FOR number IN 1..29 LOOP
      day := CURRENT_DATE - number;
      part := format('%s_p%s', parent, to_char(day, 'YYYYMMDD'));
      IF to_regclass(part) IS NULL THEN
        EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)', part, parent, day, day + 1);
      END IF;
    END LOOP;
  END LOOP;
END $$
"""
#: Thirty days of logs, seven of spans; few errors, fewer slow spans, as it should be.
_LOGS = """
INSERT INTO logs (timestamp, level, service, message, request_id, user_id, metadata)
SELECT (NOW() - random() * INTERVAL '29 days 20 hours')::timestamp,
       (ARRAY['DEBUG','INFO','INFO','INFO','INFO','INFO','INFO','WARNING','ERROR','CRITICAL'])
           [1 + floor(random() ^ 0.9 * 8.3)::int],
       'service-' || n %% 20,
       format('%%s %%s of order %%s took %%s ms', words[1 + n %% 16], words[1 + n / 16 %% 16], n / 100, n %% 977),
       'request-' || n / 5, 'user-' || n %% 500,
       jsonb_build_object('endpoint', '/api/' || words[1 + n %% 16], 'status_code', 200 + n %% 300)
  FROM generate_series(%(first)s::bigint, %(last)s) AS n, (SELECT %(words)s::text[] AS words) AS w
"""
_SPANS = """
INSERT INTO traces (trace_id, span_id, parent_span_id, operation_name, service_name, start_time, end_time, duration_ms,
                    status, tags)
SELECT lpad(to_hex(n / 6), 32, '0'), lpad(to_hex(n), 16, '0'), NULLIF(lpad(to_hex(n / 6 * 6), 16, '0'), ''),
       'GET /' || words[1 + n %% 16], 'service-' || n %% 20, moment, moment + INTERVAL '20 ms',
       CASE WHEN n %% 500 = 0 THEN 1001 + n %% 9000 ELSE n %% 900 END,
       CASE WHEN n %% 50 = 0 THEN 'error' ELSE 'success' END,
       jsonb_build_object('http.method', 'GET', 'http.url', '/api/' || n, 'user_id', 'user-' || n %% 500)
  FROM (SELECT n, (NOW() - random() * INTERVAL '6 days 20 hours')::timestamp AS moment, %(words)s::text[] AS words
          FROM generate_series(%(first)s::bigint, %(last)s) AS n) AS made
"""


def fill(dsn: str, logs: int, spans: int) -> None:
    """Rows as the database would hold after a month, made by itself."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_PARTITION)
        for statement, rows in ((_LOGS, logs), (_SPANS, spans)):
            for first in range(1, rows + 1, 250_000):
                last = min(first + 249_999, rows)
                connection.execute(statement, {"first": first, "last": last, "words": list(_WORDS)})
        connection.execute(
            "INSERT INTO test_results (test_type, status, timestamp, total_tests, passed, failed, failed_tests)"
            " SELECT (ARRAY['unit','e2e','smoke'])[1 + n % 3], 'completed', NOW() - n * INTERVAL '9 min', 100, 98, 2,"
            " jsonb_build_array(jsonb_build_object('name', 'test_' || n % 40, 'file', 'tests/a.py'))"
            " FROM generate_series(1, 10000) AS n"
        )
        connection.execute(
            "INSERT INTO coverage (component, coverage_percent, timestamp)"
            " SELECT 'component-' || n % 50, n % 100, NOW() - n * INTERVAL '6 min' FROM generate_series(1, 20000) AS n"
        )
        connection.execute(
            "INSERT INTO alerts (severity, title, message, status, timestamp) SELECT"
            " (ARRAY['info','warning','error','critical'])[1 + n % 4], 't', 'm',"
            " CASE WHEN n % 100 = 3 THEN 'active' ELSE 'resolved' END, NOW() - n * INTERVAL '5 min'"
            " FROM generate_series(1, 20000) AS n"
        )
        connection.execute("VACUUM ANALYZE")
