"""How fast records come in over OTLP, against raw COPY of the same rows into the same table; what others feel of it."""

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
#: A p99 of one round is told by five requests.
ROUNDS = 4


def send(service: Service, path: str, bodies: list[bytes]) -> float:
    """Seconds that several exporters need for these requests; each waits for its answer, and sends again at 429."""
    waiting = iter(bodies)
    headers = HEADERS | {"Content-Type": "application/x-protobuf"}

    def exporter() -> None:
        connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=60)
        for body in waiting:
            while True:
                connection.request("POST", path, body, headers)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != HTTPStatus.TOO_MANY_REQUESTS:
                    break
                time.sleep(0.2)
            assert answer.status == HTTPStatus.OK, text

    began = time.perf_counter()
    with ThreadPoolExecutor(SENDERS) as exporters:
        for done in [exporters.submit(exporter) for _ in range(SENDERS)]:
            done.result()
    return time.perf_counter() - began


def copy_again(dsn: str, table: str, columns: tuple[str, ...]) -> float:
    """Seconds that one COPY needs for the rows that are there now, once they are gone again."""
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
    """Another caller, at it; see `probe.py`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.probe", service.url, ADMIN_TOKEN, mode),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def told(process: asyncio.subprocess.Process) -> list[float]:
    """The milliseconds it measured, once it is told to end."""
    out, _ = await process.communicate(b"")
    return [float(value) for value in json.loads(out)]


@dataclass(frozen=True, slots=True)
class _Round:
    #: Seconds of the intake, and of raw COPY.
    ours: float
    raw: float
    #: Milliseconds of each of the other requests, before and meanwhile.
    idle: list[float]
    busy: list[float]


async def measure(service: Service, dsn: str, name: str, path: str, bodies: list[bytes], rows: int) -> None:
    # What reads the bodies is started by the first of them.
    await asyncio.to_thread(send, service, path, bodies[: 4 * SENDERS])
    rounds = [await _round(service, dsn, name, path, bodies, rows) for _ in range(ROUNDS)]
    ours, raw = sum(one.ours for one in rounds), sum(one.raw for one in rounds)
    print(
        f"intake of {name}: {rows * ROUNDS / ours:,.0f} rows/s; raw COPY {rows * ROUNDS / raw:,.0f} rows/s; "
        f"ratio {raw / ours:.2f}"
    )
    idle, busy = [ms for one in rounds for ms in one.idle], [ms for one in rounds for ms in one.busy]
    quiet, loud = percentile(idle, 99), percentile(busy, 99)
    print(f"  {len(busy)} other requests meanwhile, p99: {loud:.1f} ms; idle {quiet:.1f} ms; ratio {loud / quiet:.2f}")


async def _round(service: Service, dsn: str, name: str, path: str, bodies: list[bytes], rows: int) -> _Round:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {name}")
        connection.execute("CHECKPOINT")
    idle = await told(await probe(service, "idle"))
    probing = await probe(service, "busy")
    ours = await asyncio.to_thread(send, service, path, bodies)
    busy = await told(probing)
    with psycopg.connect(dsn) as connection:
        kept = connection.execute(
            f"SELECT count(*) FROM {name} WHERE metadata ? 'endpoint'"
            if name == "logs"
            else "SELECT count(*) FROM traces WHERE service_name <> 'sandbox'"
        ).fetchone()
    assert kept == (rows,), f"{kept} of {rows} {name} are there"
    raw = await asyncio.to_thread(copy_again, dsn, name, LOG_COLUMNS if name == "logs" else SPAN_COLUMNS)
    return _Round(ours, raw, idle, busy)
