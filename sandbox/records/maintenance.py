"""Periodic maintenance: alert rules, agent health, alert deliveries, partitions and retention."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.db.periodic import Periodic, exclusive
from sandbox.errors import Conflict, SandboxError
from sandbox.records import retention
from sandbox.records.agents import store as agents
from sandbox.records.agents.components import Check, Components
from sandbox.records.alert_rules.evaluator import Evaluator
from sandbox.records.alerts.store import Alerts
from sandbox.records.alerts.webhook import Webhook
from sandbox.settings import Settings
from sandbox.telemetry.recorder import Recorder

#: Seconds between two heartbeats of the components, and the least number of them before one can count as silent.
COMPONENTS_SECONDS = 30.0
COMPONENTS_BEFORE_WARNING = 3
WEBHOOK_SECONDS = 2.0
RETENTION_SECONDS = 6 * 3600.0
PARTITIONS_SECONDS = 3600.0
RETENTION = "retention"


class RecordsDropped(SandboxError):
    """Log lines or spans were dropped since the last check."""

    code = "records_dropped"


class Maintenance:
    """Starts and stops the periodic jobs. Every replica has them; each job runs in one replica at a time."""

    def __init__(self, db: Database, settings: Settings, recorder: Recorder, ping_engine: Check) -> None:
        self._db = db
        self._settings = settings
        self._recorder = recorder
        self._dropped: dict[str, int] = {}
        self._began = time.monotonic()
        alerts = Alerts(notify=settings.alert_webhook_url is not None)
        self._evaluator = Evaluator(db, alerts, {"disk_used_percent": self._disk})
        self._components = Components(
            db,
            {
                "PostgreSQL": self._postgres,
                "Container Engine": ping_engine,
                "Sandbox Manager": self._manager,
                "Log Collector": lambda: self._collector("logs"),
                "Trace Collector": lambda: self._collector("spans"),
                "Alert Manager": lambda: self._worker("alert rules"),
                "Retention Worker": lambda: self._worker(RETENTION),
            },
        )
        jobs: list[tuple[str, float, Callable[[], Awaitable[object]]]] = [
            ("partitions", PARTITIONS_SECONDS, lambda: retention.ensure_partitions(db)),
            (RETENTION, RETENTION_SECONDS, lambda: retention.run(db, settings, dry_run=False)),
            (
                "components",
                min(COMPONENTS_SECONDS, settings.agent_warning_seconds / COMPONENTS_BEFORE_WARNING),
                self._components.report,
            ),
            ("silent agents", settings.alert_interval_seconds, self._mark_silent),
            ("alert rules", settings.alert_interval_seconds, self._evaluator.evaluate),
        ]
        if settings.alert_webhook_url is not None and settings.alert_webhook_secret is not None:
            webhook = Webhook(db, settings.alert_webhook_url, settings.alert_webhook_secret)
            jobs.append(("alert webhook", WEBHOOK_SECONDS, webhook.deliver))
        self._periodic = {name: Periodic(db, name, seconds, job) for name, seconds, job in jobs}

    def start(self) -> None:
        for periodic in self._periodic.values():
            periodic.start()

    async def close(self) -> None:
        for periodic in reversed(self._periodic.values()):
            await periodic.close()

    async def _mark_silent(self) -> None:
        # Agents could not send heartbeats while no service ran: their time counts from the start of this one.
        if time.monotonic() - self._began < self._settings.agent_warning_seconds:
            return
        await agents.mark_silent(self._db, self._settings.agent_warning_seconds, self._settings.agent_error_seconds)

    async def _disk(self) -> list[tuple[str, float]]:
        home = self._settings.home
        usage = await asyncio.to_thread(shutil.disk_usage, home)
        return [(str(home), 100 * usage.used / (usage.used + usage.free))]

    async def _postgres(self) -> dict[str, Any]:
        async with self._db.read() as connection:
            version = (await connection.execute(text("SHOW server_version"))).scalar_one()
        return {"version": str(version).split(" ", 1)[0]}

    async def _manager(self) -> None:
        await asyncio.sleep(0)  # the response time is that of one turn of the event loop

    async def _collector(self, kind: str) -> None:
        dropped = getattr(self._recorder.dropped, kind)
        before, self._dropped[kind] = self._dropped.get(kind, 0), dropped
        if dropped != before:
            raise RecordsDropped(f"{dropped - before} {kind} were not recorded")

    async def _worker(self, name: str) -> None:
        failure = self._periodic[name].failure
        if failure is not None:
            raise SandboxError(failure)


async def run_retention(db: Database, settings: Settings, *, dry_run: bool) -> list[retention.Step]:
    """Run retention now. Raises Conflict while a run is under way, in any replica."""
    async with exclusive(db, RETENTION) as ours:
        if not ours:
            raise Conflict("Retention is running already.", code="retention_running", hint="Wait until it has ended.")
        return await retention.run(db, settings, dry_run=dry_run)
