"""How fast records come in over OTLP, against raw COPY of the same rows into the same table; what others feel of it."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import time

import psycopg

from sandbox.telemetry.rows import LOG_COLUMNS, SPAN_COLUMNS
from tests.acceptance.service import Service
from tests.bench.world import client, percentile

SENDERS = 8


async def send(service: Service, path: str, bodies: list[bytes]) -> float:
    """Seconds that several exporters need for these requests; each waits for its answer, and sends again at 429."""
    waiting = iter(bodies)
    headers = {"Content-Type": "application/x-protobuf"}

    async def exporter() -> None:
        async with client(service) as http:
            for body in waiting:
                while True:
                    answer = await http.post(path, content=body, headers=headers)
                    if answer.status_code != 429:
                        break
                    await asyncio.sleep(0.2)
                assert answer.status_code == 200, answer.text

    began = time.perf_counter()
    await asyncio.gather(*(exporter() for _ in range(SENDERS)))
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
    """Another caller; see `probe.py`."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.probe", service.url, mode, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


async def told(process: asyncio.subprocess.Process) -> list[float]:
    """The milliseconds it measured, once it is told to end."""
    out, _ = await process.communicate(b"")
    return [float(value) for value in json.loads(out)]


async def measure(service: Service, dsn: str, name: str, path: str, bodies: list[bytes], rows: int) -> None:
    columns = LOG_COLUMNS if name == "logs" else SPAN_COLUMNS
    await send(service, path, bodies[: 4 * SENDERS])  # what reads the bodies is started by the first of them
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {name}")
        connection.execute("CHECKPOINT")
    idle = await told(await probe(service, "idle"))
    probing = await probe(service, "busy")
    ours = await send(service, path, bodies)
    busy = await told(probing)
    with psycopg.connect(dsn) as connection:
        kept = connection.execute(
            f"SELECT count(*) FROM {name} WHERE metadata ? 'endpoint'"
            if name == "logs"
            else "SELECT count(*) FROM traces WHERE service_name <> 'sandbox'"
        ).fetchone()
    assert kept == (rows,), f"{kept} of {rows} {name} are there"
    raw = await asyncio.to_thread(copy_again, dsn, name, columns)
    print(f"intake of {name}: {rows / ours:,.0f} rows/s; raw COPY {rows / raw:,.0f} rows/s; ratio {raw / ours:.2f}")
    quiet, loud = percentile(idle, 99), percentile(busy, 99)
    print(f"  other requests meanwhile, p99: {loud:.1f} ms; idle {quiet:.1f} ms; ratio {loud / quiet:.2f}")
