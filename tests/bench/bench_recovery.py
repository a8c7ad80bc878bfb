"""Measures the comparison of 500 sessions with the engine, which an admin waits for in the recovery view."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
import uuid
from pathlib import Path

import docker
from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.db.embedded import EmbeddedPostgres
from sandbox.db.migrations import migrate
from sandbox.engine import labels
from sandbox.engine.docker.engine import DockerEngine
from sandbox.engine.guest_client.client import GuestClient
from sandbox.records.alerts.store import Alerts
from sandbox.sessions.recovery.service import RecoveryService
from sandbox.sessions.run_origin import new_origin
from sandbox.settings import Settings
from tests.bench.measure import print_durations, print_ratio

SESSIONS = 500
TIMES = 10
_INSERT = text("""
    INSERT INTO sandbox_sessions (session_id, user_id, runtime_type, pipeline_run_id, status, containers)
    SELECT gen_random_uuid(), 'u', 'python312', 'r', 'running',
           '{"main": {"id": "x", "ip": null, "runtime": "python312", "status": "running"}}'
      FROM generate_series(1, :count) RETURNING session_id
""")


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="sbx-bench-"))
    home.chmod(0o711)
    try:
        asyncio.run(_measure(home))
    finally:
        asyncio.run(EmbeddedPostgres(home).stop())
        shutil.rmtree(home, ignore_errors=True)


async def _measure(home: Path) -> None:
    dsn = await EmbeddedPostgres(home).start()
    await migrate(dsn)
    db, deployment_id, client = Database(dsn), uuid.uuid4(), docker.APIClient()
    engine = DockerEngine(Settings(home=home), deployment_id, guest_factory=GuestClient)
    async with db.transaction() as conn:
        ids = (await conn.execute(_INSERT, {"count": SESSIONS})).scalars().all()
    try:
        # A volume is enough to represent a session, because the comparison reads lists of resources.
        for session_id in ids:
            name = labels.container_name(session_id, "main")
            client.create_volume(name, labels=labels.resource_labels(deployment_id, session_id, "main"))
        recovery = RecoveryService(db, engine, Alerts(notify=False), new_origin)
        durations: list[float] = []
        for _ in range(TIMES):
            began = time.perf_counter()
            findings = await recovery.findings()
            durations.append(time.perf_counter() - began)
        assert len(findings) == SESSIONS
        print_durations(f"comparison of {SESSIONS} sessions", sorted(durations))
        print_ratio("slowest comparison / 2 s", max(durations) / 2, "under 1")
    finally:
        for resource in await engine.list_resources():
            await engine.remove(resource)
        client.close()
        await engine.aclose()
        await db.close()
