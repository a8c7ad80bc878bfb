"""Generates a month of records of a busy platform, in PostgreSQL.

Values are common, rare or absent on purpose: a few services, users and words make up most rows, others a handful; one
service was switched off weeks ago, and one never fails.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any

import psycopg

WORDS = (
    *("payment", "order", "user", "cart", "session", "token", "cache", "queue"),
    *("worker", "retry", "upload", "invoice", "stock", "search", "index", "email"),
)
LOG_DAYS, SPAN_DAYS = 30, 7
#: Most seconds between a row's time and the time that its number implies, as with clocks that differ.
_JITTER = 2.0

_LOGS = """
INSERT INTO {part} (log_id, timestamp, level, service, message, stack_trace, request_id, user_id, metadata)
SELECT %(base)s + n, moment, level,
       CASE WHEN n %% 200000 = 0 THEN 'service-rare'
            WHEN n %% 40 = 0 AND moment < CURRENT_DATE - 20 THEN 'service-retired'
            WHEN level IN ('ERROR', 'CRITICAL') AND service = 12 THEN 'service-13'
            ELSE 'service-' || service END,
       format('%%s %%s of order %%s took %%s ms%%s', words[1 + n %% 16], words[1 + n / 16 %% 16], n / 100, n %% 977,
              CASE WHEN n %% 500000 = 77 THEN ' unobtainium' ELSE '' END),
       CASE WHEN level IN ('ERROR', 'CRITICAL')
            THEN repeat('  File "/app/service.py", line 17, in handle' || chr(10), 8) END,
       'request-' || n / 5,
       CASE WHEN n %% 1000000 = 7 THEN 'user-rare' ELSE 'user-' || floor(1000 * random() ^ 3)::int END,
       jsonb_build_object('endpoint', '/api/' || words[1 + n %% 16], 'status_code', 200 + n %% 300)
  FROM (SELECT n, %(words)s::text[] AS words, floor(20 * random() ^ 3)::int AS service,
               (CASE WHEN luck < 0.2 THEN 'DEBUG' WHEN luck < 0.88 THEN 'INFO' WHEN luck < 0.96 THEN 'WARNING'
                     WHEN luck < 0.999 THEN 'ERROR' ELSE 'CRITICAL' END) AS level,
               greatest(%(start)s::timestamp, least(%(end)s::timestamp - INTERVAL '1 microsecond',
                   %(start)s::timestamp + (n - %(first)s + random()) / (%(last)s - %(first)s + 1)
                   * (%(end)s::timestamp - %(start)s::timestamp) + (random() - 0.5) * %(jitter)s * INTERVAL '1 second'
               )) AS moment
          FROM (SELECT n, random() AS luck FROM generate_series(%(first)s::bigint, %(last)s) AS n) AS numbered) AS made
"""
_SPANS = """
INSERT INTO {part} (trace_id, span_id, parent_span_id, operation_name, service_name, start_time, end_time, duration_ms,
                    status, tags)
SELECT lpad(to_hex(n / 6), 32, '0'), lpad(to_hex(n), 16, '0'),
       CASE WHEN n %% 6 <> 0 THEN lpad(to_hex(n / 6 * 6), 16, '0') END,
       CASE WHEN n %% 200000 = 0 THEN 'GET /rare' ELSE 'GET /' || words[1 + floor(16 * random() ^ 3)::int] END,
       CASE WHEN n %% 200000 = 1 THEN 'service-rare'
            WHEN luck < 0.02 AND service = 12 THEN 'service-13'
            ELSE 'service-' || service END,
       moment, moment + taken * INTERVAL '1 ms', taken,
       CASE WHEN luck < 0.001 THEN 'timeout' WHEN luck < 0.02 THEN 'error' ELSE 'success' END,
       jsonb_build_object('http.method', 'GET', 'http.url', '/api/' || n, 'request_id', 'request-' || n / 6,
           'user_id', CASE WHEN n %% 400000 = 7 THEN 'user-rare' ELSE 'user-' || floor(1000 * random() ^ 3)::int END)
  FROM (SELECT n, %(words)s::text[] AS words, floor(20 * random() ^ 3)::int AS service, random() AS luck,
               CASE WHEN n %% 500 = 0 THEN 1001 + n %% 9000 ELSE n %% 900 END AS taken,
               greatest(%(start)s::timestamp, least(%(end)s::timestamp - INTERVAL '1 microsecond',
                   %(start)s::timestamp + (n - %(first)s + random()) / (%(last)s - %(first)s + 1)
                   * (%(end)s::timestamp - %(start)s::timestamp) + (random() - 0.5) * %(jitter)s * INTERVAL '1 second'
               )) AS moment
          FROM generate_series(%(first)s::bigint, %(last)s) AS n) AS made
"""
_OTHERS = (
    "INSERT INTO test_results (test_type, status, timestamp, total_tests, passed, failed, failed_tests)"
    " SELECT (ARRAY['unit','e2e','smoke'])[1 + n % 3], CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'completed' END,"
    " NOW() - n * INTERVAL '13 min', 100, 98, 2,"
    " jsonb_build_array(jsonb_build_object('name', 'test_' || n % 40, 'file', 'tests/a.py'))"
    " FROM generate_series(1, 10000) AS n",
    "INSERT INTO coverage (component, coverage_percent, timestamp, test_type)"
    " SELECT 'component-' || n % 50, n % 100, NOW() - n * INTERVAL '6 min', (ARRAY['unit','e2e'])[1 + n % 2]"
    " FROM generate_series(1, 20000) AS n",
    "INSERT INTO alerts (severity, title, message, source, status, timestamp)"
    " SELECT (ARRAY['info','warning','error','critical'])[1 + n % 4], 't', 'm', 'source-' || n % 20,"
    " CASE WHEN n % 100 = 3 THEN 'active' ELSE 'resolved' END, NOW() - n * INTERVAL '5 min'"
    " FROM generate_series(1, 20000) AS n",
    "VACUUM ANALYZE agents, test_results, coverage, alerts",
)


def fill(dsn: str, logs: int, spans: int) -> None:
    """Generate the rows of a month: thirty days of logs and seven of spans, up to now.

    Past days are written to tables without indexes, which are then attached as partitions: PostgreSQL builds each index
    at once, which is faster than row by row.
    """
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET maintenance_work_mem = '512MB'")
        _fill_days(connection, "logs", _LOGS, logs, LOG_DAYS)
        _fill_days(connection, "traces", _SPANS, spans, SPAN_DAYS)
        for statement in _OTHERS:
            connection.execute(statement)


def forget_requests(dsn: str) -> None:
    """Delete the records about the service's own requests in an earlier run, so that users have only generated ones."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for table, column in (("logs", "service"), ("traces", "service_name")):
            removed = connection.execute(
                f"WITH removed AS (DELETE FROM {table} WHERE {column} = 'sandbox' RETURNING tableoid)"
                " SELECT DISTINCT tableoid::regclass::text FROM removed"
            ).fetchall()
            for (part,) in removed:
                connection.execute(f"VACUUM ANALYZE {part}")


def _fill_days(connection: psycopg.Connection[Any], table: str, statement: str, rows: int, days: int) -> None:
    """Generate rows, spread evenly over the days up to now. Ids increase with time, as in real use."""
    now: datetime = connection.execute("SELECT NOW()::timestamp").fetchall()[0][0]
    today = datetime.combine(now, time.min)
    started = today - timedelta(days=days - 1)
    base = 0
    if table == "logs":
        (base,) = connection.execute("SELECT nextval('logs_log_id_seq')").fetchall()[0]
        connection.execute("SELECT setval('logs_log_id_seq', %s)", (base + rows,))
    first = 1
    for number in range(days):
        start = started + timedelta(days=number)
        end = min(start + timedelta(days=1), now)
        last = round(rows * ((end - started) / (now - started)))
        part = f"{table}_p{start:%Y%m%d}"
        values = {"base": base, "first": first, "last": last, "start": start, "end": end}
        new = connection.execute("SELECT to_regclass(%s) IS NULL", (part,)).fetchall()[0][0]
        if new:
            connection.execute(f"CREATE TABLE {part} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        connection.execute(statement.format(part=part), values | {"words": list(WORDS), "jitter": _JITTER})
        if new:
            connection.execute(
                f"ALTER TABLE {table} ATTACH PARTITION {part}"
                f" FOR VALUES FROM ('{start:%Y-%m-%d}') TO ('{start + timedelta(days=1):%Y-%m-%d}')"
            )
        connection.execute(f"VACUUM ANALYZE {part}")
        first = last + 1
