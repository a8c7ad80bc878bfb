"""Recovery: finds and repairs differences between database and engine, and removes stray resources."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.concurrency import for_each
from sandbox.db.connection import Database
from sandbox.domain.failures import WORKSPACE_LOST
from sandbox.domain.session import ContainerInfo, SessionError, SessionStatus
from sandbox.engine.base import Engine, Resource, ResourceKind
from sandbox.errors import SandboxError
from sandbox.pool import store as pool
from sandbox.records.alerts.store import Alerts
from sandbox.sessions import store as sessions
from sandbox.sessions.recovery import store
from sandbox.sessions.recovery.compare import Action, Finding, assign, compare
from sandbox.telemetry.metrics.collectors import STRAYS, STRAYS_REMOVED

log = logging.getLogger(__name__)

#: The sweep does not remove a younger stray resource, because its session's row may not be committed yet.
GRACE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finding, and the result of acting on it."""

    finding: Finding
    #: planned (a dry run), done, skipped (the session had changed meanwhile, or its owner has to act) or failed.
    outcome: str
    #: Why it failed.
    error: str | None = None


class RecoveryService:
    """Compares the database with the engine and repairs differences.

    Raises `DatabaseUnavailable` or `EngineError`, and changes nothing, when one of the two cannot be read.
    """

    def __init__(
        self, db: Database, engine: Engine, alerts: Alerts, new_origin: Callable[[], sessions.RunOrigin]
    ) -> None:
        self._db = db
        self._engine = engine
        self._alerts = alerts
        self._new_origin = new_origin

    async def findings(self, session_ids: Collection[UUID] | None = None) -> list[Finding]:
        """Findings of all sessions that are not terminated and all stray resources, or of the given sessions only."""
        async with self._db.read() as conn:
            rows = await store.live(conn)
        resources = await self._engine.list_resources()
        async with self._db.read() as conn:
            owners = await pool.owners(conn)
        found = compare(rows, assign(resources, owners))
        strays = {f.session_id for f in found if f.session is None and f.session_id is not None}
        if strays:
            async with self._db.read() as conn:
                alive = await store.living(conn, strays)
            found = [f for f in found if f.session is not None or f.session_id not in alive]
        if session_ids is not None:
            found = [f for f in found if f.session_id in session_ids]
        return found

    async def recover(self, session_ids: Collection[UUID] | None, *, dry_run: bool) -> list[Outcome]:
        """Act on all findings, or on those of the given sessions. A failure with one does not stop the others."""
        found = await self.findings(session_ids)
        if dry_run:
            return [Outcome(finding, "planned") for finding in found]
        return await self.act(found)

    async def act(self, findings: Collection[Finding]) -> list[Outcome]:
        """Act on these findings. A failure with one does not stop the others."""
        return [await self._apply(finding) for finding in findings]

    async def sweep(self, grace: timedelta = GRACE) -> int:
        """Remove stray resources older than the grace period; how many. Sets the metrics of strays."""
        old = datetime.now(UTC) - grace
        found = await self.findings()
        strays = Counter(resource.kind for finding in found if finding.session is None for resource in finding.found)
        for kind in ResourceKind:
            STRAYS.labels(kind.value).set(strays[kind])
        removed = 0
        for finding in found:
            created = [resource.created_at for resource in finding.found]
            if finding.action is Action.REMOVE and all(at is not None and at < old for at in created):
                removed += (await self._apply(finding)).outcome == "done"
        return removed

    async def _apply(self, finding: Finding) -> Outcome:
        try:
            done = await self._do(finding)
        except SandboxError as error:
            log.warning("recovery: %s of %s failed: %s", finding.action, _what(finding), error)
            return Outcome(finding, "failed", error.message)
        if finding.action is not Action.NONE:
            log.info("recovery: %s of %s: %s (%s)", finding.action, _what(finding), done, finding.reason)
        return Outcome(finding, done)

    async def _do(self, finding: Finding) -> str:
        match finding.action:
            case Action.NONE:
                session = finding.session
                in_error = session is not None and session.work is None and session.status is SessionStatus.ERROR
                return "skipped" if in_error else "done"
            case Action.ADOPT:
                done = await self._adopt(finding)
            case Action.RESTART | Action.RECREATE:
                done = await self._launch_again(finding)
            case Action.MARK_LOST:
                done = await self._mark_lost(finding)
            case Action.REMOVE:
                done = await self._remove(finding.found)
        return "done" if done else "skipped"

    async def _adopt(self, finding: Finding) -> bool:
        if finding.session is None:
            return False
        containers = await self._inspect(finding.session.session_id, finding.session.containers)
        async with self._db.transaction() as conn:
            return await store.adopt(
                conn, finding.session, containers, f"recovery: {finding.reason}; they are recorded as the session's"
            )

    async def _launch_again(self, finding: Finding) -> bool:
        session = finding.session
        if session is None:
            return False
        async with self._db.transaction() as conn:
            again = await sessions.relaunch(conn, session.session_id, session.status, None, None, self._new_origin())
            if again is None:
                return False
            line = store.recovery_line(f"recovery: {finding.reason}; launched again")
            await store.append_events(conn, session.session_id, [line])
            if finding.action is Action.RECREATE:
                await self._alert(conn, finding, "warning", "Containers", "they are created again on their volumes")
        return True

    async def _mark_lost(self, finding: Finding) -> bool:
        session = finding.session
        if session is None:
            return False
        containers = await self._inspect(session.session_id, session.containers)
        hint = "Launch it again to begin from the project's source: sandbox relaunch."
        error = SessionError(WORKSPACE_LOST, finding.reason, hint, None)
        async with self._db.transaction() as conn:
            lost = await store.mark_lost(conn, session, error, containers)
            if lost:
                await self._alert(conn, finding, "error", "Files", "the session is in error")
        return lost

    async def _alert(self, conn: AsyncConnection, finding: Finding, severity: str, what: str, outcome: str) -> None:
        """Open an alert, unless one is open for this session and kind of loss."""
        session_id = str(finding.session_id)
        metadata = {
            "cause": f"recovery:{finding.action}:{session_id}",
            "session_id": session_id,
            "roles": list(finding.differs),
        }
        alert = {
            "severity": severity,
            "title": f"{what} of session {session_id} were lost",
            "message": f"{finding.reason}; {outcome}",
            "source": "recovery",
            "metadata": metadata,
        }
        await self._alerts.open(conn, alert)

    async def _remove(self, resources: Sequence[Resource]) -> bool:
        removed = [resource for resource in resources if await self._engine.remove(resource)]
        for resource in removed:
            STRAYS_REMOVED.labels(resource.kind.value).inc()
        return bool(removed)

    async def _inspect(self, session_id: UUID, recorded: dict[str, ContainerInfo]) -> dict[str, ContainerInfo]:
        async def one(role: str) -> ContainerInfo:
            state = await self._engine.inspect_container(session_id, role)
            if state is None:
                return ContainerInfo(recorded[role].id, None, recorded[role].runtime, "gone")
            return ContainerInfo(state.id, state.ip, recorded[role].runtime, state.status)

        return await for_each(recorded, one)


def _what(finding: Finding) -> str:
    if finding.session is not None:
        return f"session {finding.session_id}"
    return ", ".join(f"{resource.kind} {resource.name}" for resource in finding.found)
