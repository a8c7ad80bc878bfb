"""Wanted against observed: finds sessions with unfinished work, claims them and does it, wherever it stands.

Notifications only wake it; a slow poll behind them repairs what they missed. A restart is the same walk: the work is
in the row, the dead owner's claim is free, the pipeline skips what is checkpointed.
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
from sandbox.launch.pipeline import Pipeline
from sandbox.sessions import store
from sandbox.sessions.replica import Replica
from sandbox.telemetry import context

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
CONCURRENT_TERMINATIONS = 16


@dataclass(slots=True)
class _Running:
    work: Work
    run_id: UUID
    task: asyncio.Task[None]


class Reconciler:
    """One a replica. `start` after the replica is registered; `close` leaves work where it stands for others.

    `launched` is told of each session whose launch has ended here, well or not.
    """

    def __init__(
        self,
        db: Database,
        engine: Engine,
        pipeline: Pipeline,
        replica: Replica,
        *,
        concurrent_launches: int,
        lease_seconds: float,
        launched: Callable[[UUID], None],
    ) -> None:
        self._db = db
        self._engine = engine
        self._pipeline = pipeline
        self._replica = replica
        self._capacity = {Work.LAUNCH: concurrent_launches, Work.TERMINATE: CONCURRENT_TERMINATIONS}
        self._lease = lease_seconds
        self._launched = launched
        self._running: dict[UUID, _Running] = {}
        self._wake = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._loops = [
            asyncio.create_task(self._reconcile_forever(), name="reconciler"),
            asyncio.create_task(self._listen(), name="reconciler-listener"),
        ]

    async def close(self) -> None:
        """Stop taking work and let go of what is under way: containers and installs go on, the next owner resumes."""
        tasks = [*self._loops, *(running.task for running in self._running.values())]
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
                log.warning("cannot look for work: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()

    async def _reconcile(self) -> None:
        async with self._db.transaction() as conn:
            if self._running:
                held = await store.renew_leases(conn, self._replica.number, list(self._running), self._lease)
                self._drop_overtaken(held)
            claimed: list[tuple[Work, Session]] = []
            for work, capacity in self._capacity.items():
                room = capacity - sum(running.work is work for running in self._running.values())
                if room > 0:
                    sessions = await store.claim(
                        conn,
                        self._replica.number,
                        work,
                        running=list(self._running),
                        limit=room,
                        lease=self._lease,
                    )
                    claimed += [(work, session) for session in sessions]
        for work, session in claimed:
            task = asyncio.create_task(self._do(work, session), name=f"{work}-{session.session_id}")
            self._running[session.session_id] = _Running(work, session.run_id, task)

    def _drop_overtaken(self, held: dict[UUID, store.Held]) -> None:
        """Stop what the row does not ask of us any more (DELETE during a launch, another owner)."""
        for session_id, running in self._running.items():
            now = held.get(session_id)
            overtaken = now is None or now.work is not running.work or now.run_id != running.run_id
            if overtaken and not running.task.cancelling():
                log.info("the %s of session %s is not this replica's any more", running.work.value, session_id)
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
                        self._launched(session.session_id)
                else:
                    await self._terminate(session)
        except LostOwnership as error:
            log.info("%s", error)
        except (DatabaseUnavailable, EngineError, GuestError) as error:
            log.warning("%s of session %s waits: %s", work.value, session.session_id, error)
            await asyncio.sleep(1)
        except Exception:
            log.exception("%s of session %s failed; it will be tried again", work.value, session.session_id)
            await asyncio.sleep(5)
        finally:
            self._running.pop(session.session_id, None)
            self._wake.set()

    async def _terminate(self, session: Session) -> None:
        """Remove everything, then say so: a crash between the two removes again, and finds it gone."""
        removed = await self._engine.remove_session(session.session_id)
        async with self._db.transaction() as conn:
            done = await store.mark_terminated(conn, self._replica.number, session)
        if done:
            log.info("terminated; %d resources removed", len(removed))

    async def _listen(self) -> None:
        await listen(self._db, store.CHANNEL, lambda _: self._wake.set())
