"""Throughput of the OTLP intake, compared with raw COPY of the same rows into the same table, and the response times of
other requests meanwhile."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

import psycopg

from sandbox.telemetry.rows import LOG_COLUMNS, SPAN_COLUMNS
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.bench.world import HEADERS, percentile

SENDERS = 8
#: One round has too few other requests for a stable p99.
ROUNDS = 4


def send(service: Service, path: str, bodies: list[bytes]) -> float:
    """Seconds that several exporters need to send these bodies. Each retries at 429 and 503, as exporters do."""
    unsent = iter(bodies)
    headers = HEADERS | {"Content-Type": "application/x-protobuf"}

    def exporter() -> None:
        connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=60)
        for body in unsent:
            while True:
                connection.request("POST", path, body, headers)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status not in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
                    break
                time.sleep(0.2)
            assert answer.status == HTTPStatus.OK, text

    began = time.perf_counter()
    with ThreadPoolExecutor(SENDERS) as exporters:
        for done in [exporters.submit(exporter) for _ in range(SENDERS)]:
            done.result()
    return time.perf_counter() - began


def copy_again(dsn: str, table: str, columns: tuple[str, ...]) -> float:
    """Seconds that one COPY needs to write the rows now in the table again, after the table was truncated."""
    names = ", ".join(columns)
    text = io.BytesIO()
    with psycopg.connect(dsn, autocommit=True) as connection:
        with connection.cursor().copy(f"COPY (SELECT {names} FROM {table}) TO STDOUT") as out:
            for block in out:
                text.write(block)
        connection.execute(f"TRUNCATE {table}")
        connection.execute("CHECKPOINT")
        text.seek(0)
        began = time.perf_counter()
        with connection.cursor().copy(f"COPY {table} ({names}) FROM STDIN") as into:
            while block := text.read(1 << 18):
                into.write(block)
        took = time.perf_counter() - began
        connection.execute(f"TRUNCATE {table}")
    return took


async def probe(service: Service, mode: str) -> asyncio.subprocess.Process:
    """Start `probe.py`, which measures other requests; returns once it is ready."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.probe", service.url, ADMIN_TOKEN, mode),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def probed(process: asyncio.subprocess.Process) -> list[float]:
    """End a probe; the milliseconds of the requests that it measured."""
    out, _ = await process.communicate(b"")
    return [float(value) for value in json.loads(out)]


@dataclass(frozen=True, slots=True)
class _Round:
    #: Seconds that the intake and raw COPY took.
    ours: float
    raw: float
    #: Milliseconds of each of the other requests, before the intake and during it.
    idle: list[float]
    busy: list[float]


async def measure(service: Service, dsn: str, name: str, path: str, bodies: list[bytes], rows: int) -> None:
    """Print the intake's rows per second, and the p99 of other requests during the intake and without it."""
    # The first bodies start the worker processes.
    await asyncio.to_thread(send, service, path, bodies[: 4 * SENDERS])
    rounds = [await _round(service, dsn, name, path, bodies, rows) for _ in range(ROUNDS)]
    ours, raw = sum(one.ours for one in rounds), sum(one.raw for one in rounds)
    print(
        f"intake of {name}: {rows * ROUNDS / ours:,.0f} rows/s; raw COPY {rows * ROUNDS / raw:,.0f} rows/s; "
        f"ratio {raw / ours:.2f}"
    )
    idle, busy = [ms for one in rounds for ms in one.idle], [ms for one in rounds for ms in one.busy]
    without, during = percentile(idle, 99), percentile(busy, 99)
    print(
        f"  p99 of {len(busy)} other requests during the intake: {during:.1f} ms; without it {without:.1f} ms; "
        f"ratio {during / without:.2f}"
    )


async def _round(service: Service, dsn: str, name: str, path: str, bodies: list[bytes], rows: int) -> _Round:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {name}")
        connection.execute("CHECKPOINT")
    idle = await probed(await probe(service, "idle"))
    probing = await probe(service, "busy")
    ours = await asyncio.to_thread(send, service, path, bodies)
    busy = await probed(probing)
    with psycopg.connect(dsn) as connection:
        stored = connection.execute(
            f"SELECT count(*) FROM {name} WHERE metadata ? 'endpoint'"
            if name == "logs"
            else "SELECT count(*) FROM traces WHERE service_name <> 'sandbox'"
        ).fetchone()
    assert stored == (rows,), f"{stored} of {rows} {name} are stored"
    raw = await asyncio.to_thread(copy_again, dsn, name, LOG_COLUMNS if name == "logs" else SPAN_COLUMNS)
    return _Round(ours, raw, idle, busy)
