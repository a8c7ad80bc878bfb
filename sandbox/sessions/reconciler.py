"""The reconciler: finds sessions with unfinished work, claims them, and does the work.

Notifications only trigger a poll; periodic polls find what they missed. A restart needs no special handling: the work
is in the session's row, the claim of a dead replica is free, and the pipeline skips the stages that have a checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sandbox.db.connection import Database
from sandbox.db.notifications import listen
from sandbox.domain.session import Session, Work
from sandbox.engine.base import Engine
from sandbox.errors import DatabaseUnavailable, EngineError, GuestError, LostOwnership
from sandbox.launch.outages import LaunchWaits
from sandbox.launch.pipeline import Pipeline
from sandbox.launch.slots import LaunchSlots
from sandbox.pool import store as pool
from sandbox.sessions import store
from sandbox.sessions.replica import Replica
from sandbox.telemetry import context

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
#: How often the engine is asked whether it answers again, while launches wait for it.
ENGINE_SECONDS = 1.0
CONCURRENT_TERMINATIONS = 16


@dataclass(slots=True)
class _Running:
    """Work that this replica is doing."""

    work: Work
    run_id: UUID
    task: asyncio.Task[None]


class Reconciler:
    """Does the work of sessions for one replica. Not thread-safe.

    `start` must come after the replica is registered. `close` interrupts the work, and other replicas resume it.
    """

    def __init__(
        self,
        db: Database,
        engine: Engine,
        pipeline: Pipeline,
        replica: Replica,
        *,
        slots: LaunchSlots,
        lease_seconds: float,
        on_launch_end: Callable[[UUID], None],
    ) -> None:
        """`on_launch_end(session_id)` is called when a launch has ended on this replica, successfully or not."""
        self._db = db
        self._engine = engine
        self._pipeline = pipeline
        self._replica = replica
        self._slots = slots
        self._lease = lease_seconds
        self._on_launch_end = on_launch_end
        self._running: dict[UUID, _Running] = {}
        self._wake = asyncio.Event()
        slots.on_release = self._wake.set
        self._loops: list[asyncio.Task[None]] = []
        #: Ends once the engine answers again; None if no launch has met an engine that is away.
        self._engine_away: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._loops = [
            asyncio.create_task(self._reconcile_forever(), name="reconciler"),
            asyncio.create_task(self._listen(), name="reconciler-listener"),
        ]

    async def close(self) -> None:
        """Stop claiming work and cancel the tasks. Containers and installs go on; the next owner resumes the runs."""
        tasks = [*self._loops, *(running.task for running in self._running.values())]
        if self._engine_away is not None:
            tasks.append(self._engine_away)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=3)

    async def _reconcile_forever(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._reconcile()
            except DatabaseUnavailable as error:
                log.warning("cannot poll for work: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()

    async def _reconcile(self) -> None:
        async with self._db.transaction() as conn:
            if self._running:
                claims = await store.renew_leases(conn, self._replica.number, list(self._running), self._lease)
                self._cancel_superseded(claims)
            claimed: list[tuple[Work, Session]] = []
            for work in Work:
                free = self._free(work)
                if free > 0:
                    sessions = await store.claim(
                        conn,
                        self._replica.number,
                        work,
                        running=list(self._running),
                        limit=free,
                        per_user=self._slots.per_user if work is Work.LAUNCH else CONCURRENT_TERMINATIONS,
                        lease=self._lease,
                        with_waiting=work is not Work.LAUNCH or self._engine_away is None,
                    )
                    claimed += [(work, session) for session in sessions]
        for work, session in claimed:
            task = asyncio.create_task(self._do(work, session), name=f"{work}-{session.session_id}")
            self._running[session.session_id] = _Running(work, session.run_id, task)

    def _free(self, work: Work) -> int:
        """How much more work of this kind this replica takes on."""
        under_way = [session_id for session_id, running in self._running.items() if running.work is work]
        return self._slots.free(under_way) if work is Work.LAUNCH else CONCURRENT_TERMINATIONS - len(under_way)

    def _cancel_superseded(self, claims: dict[UUID, store.Claim]) -> None:
        """Cancel tasks whose session has other work now (DELETE during a launch) or another owner."""
        for session_id, running in self._running.items():
            claim = claims.get(session_id)
            superseded = claim is None or claim.work is not running.work or claim.run_id != running.run_id
            if superseded and not running.task.cancelling():
                log.info("this replica does not own the %s of session %s any more", running.work.value, session_id)
                running.task.cancel()

    async def _do(self, work: Work, session: Session) -> None:
        try:
            with context.bind(session_id=str(session.session_id), user_id=session.user_id):
                if work is Work.LAUNCH:
                    try:
                        await self._pipeline.run(session, self._replica.number)
                    finally:
                        # Also when the task is cancelled: a row at rest has no owner, which `_reconcile` may observe
                        # before the pipeline has returned.
                        self._on_launch_end(session.session_id)
                else:
                    await self._terminate(session)
        except LaunchWaits as error:
            log.warning("%s", error, extra={"session_id": str(session.session_id)})
            if self._engine_away is None:
                self._engine_away = asyncio.create_task(self._await_engine(), name="engine-away")
        except LostOwnership as error:
            log.info("%s", error)
        except (DatabaseUnavailable, EngineError, GuestError) as error:
            log.warning("%s of session %s will be tried again: %s", work.value, session.session_id, error)
            await asyncio.sleep(1)
        except Exception:
            log.exception("%s of session %s failed; it will be tried again", work.value, session.session_id)
            await asyncio.sleep(5)
        finally:
            self._running.pop(session.session_id, None)
            self._wake.set()

    async def _await_engine(self) -> None:
        """Wait until the engine answers, then let the launches that wait for it be claimed."""
        answers = False
        while not answers:
            await asyncio.sleep(ENGINE_SECONDS)
            try:
                await self._engine.ping()
            except EngineError as error:
                log.debug("launches wait for the container engine: %s", error)
            else:
                answers = True
        log.info("the container engine answers again")
        self._engine_away = None
        self._wake.set()

    async def _terminate(self, session: Session) -> None:
        """Remove the session's resources, then mark it terminated. After a crash between the two, both are repeated."""
        async with self._db.read() as conn:
            from_pool = await pool.of_session(conn, session.session_id)
        removed = []
        for owner in (*from_pool.values(), session.session_id):
            removed += await self._engine.remove_session(owner)
        async with self._db.transaction() as conn:
            done = await store.mark_terminated(conn, self._replica.number, session)
        if done:
            log.info("terminated; %d resources removed", len(removed))

    async def _listen(self) -> None:
        await listen(self._db, store.CHANNEL, lambda _: self._wake.set())
