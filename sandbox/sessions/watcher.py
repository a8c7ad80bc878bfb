"""Notices when a container of a session at rest stops or disappears, or its app exits, and records it.

A check is triggered by the engine's events and by the guest agents; a periodic relist finds what they missed. Sessions
that are being launched or terminated are not checked (a launch notices by itself), and nothing is changed while the
engine does not answer. Every replica watches all sessions: the first one records a loss, and the others find that the
row has changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from uuid import UUID

from sandbox.concurrency import for_each
from sandbox.db.connection import Database
from sandbox.domain.failures import PASSING_LOSSES
from sandbox.domain.session import ContainerInfo, Session, SessionError, SessionStatus, Work
from sandbox.engine.base import ContainerState, Engine, EngineEvent, ResourceKind
from sandbox.engine.labels import container_name
from sandbox.errors import EngineError, GuestError, Kind, SandboxError
from sandbox.launch.causes.finding import Causes
from sandbox.launch.losses import find_loss
from sandbox.secrets.environments import Environments
from sandbox.sessions import store
from sandbox.sessions.app_exits import EXITED, AppExit, AppExitMonitor, ExitOutcome, find_app_exits, needs_polling
from sandbox.sessions.guest_monitor import GuestMonitor
from sandbox.sessions.memory_reports import MemoryReports
from sandbox.sessions.recovery import store as recovery

log = logging.getLogger(__name__)

RECONNECT_SECONDS = 1.0
RELIST_SECONDS = 30.0
#: Pause before sessions whose check was not conclusive (a launch is about to end, the database is away) are checked
#: again.
RECHECK_SECONDS = 0.5
CONCURRENT_CHECKS = 16
#: How long a guest agent that is asked because something is suspected may take to answer.
ANSWER_SECONDS = 5.0


class Watcher:
    """Follows the engine's events and the exits of apps. Its state need not survive a restart. Not thread-safe."""

    def __init__(
        self,
        db: Database,
        engine: Engine,
        environments: Environments,
        causes: Causes,
        *,
        on_change: Callable[[UUID], None],
        on_engine: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_change(session_id)` is called when this replica has recorded that a session is lost or goes on,
        `on_engine()` when the engine answers for the first time, and again after it was away."""
        self._db = db
        self._on_change = on_change
        self._on_engine = on_engine
        self._engine = engine
        self._environments = environments
        self._causes = causes
        self._apps = AppExitMonitor(engine, self.check)
        self._memory = MemoryReports()
        self._guests = GuestMonitor(db, engine, self.check)
        #: Sessions with a pending check.
        self._pending: set[UUID] = set()
        self._wake = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._loops = [
            asyncio.create_task(self._guests.run(), name="guest-monitor"),
            asyncio.create_task(self._follow_engine(), name="engine-watcher"),
            asyncio.create_task(self._run_checks(), name="session-checks"),
        ]

    async def close(self) -> None:
        for task in self._loops:
            task.cancel()
        if self._loops:
            await asyncio.wait(self._loops, timeout=3)
        await self._apps.close()

    def check(self, session_id: UUID) -> None:
        """Schedule a check of this session, because something may have happened to it or its launch has ended."""
        self._pending.add(session_id)
        self._wake.set()

    async def _follow_engine(self) -> None:
        while True:
            relisting = asyncio.create_task(self._relist_periodically(), name="engine-watcher-relist")
            try:
                # The subscription comes before the first list, so no event between the two is missed.
                async with aclosing(self._engine.events()) as events:  # type: ignore[type-var]
                    async for event in events:
                        self._handle(event)
            except EngineError as error:
                log.warning("the engine's events cannot be read: %s", error)
            finally:
                relisting.cancel()
                await asyncio.wait({relisting})
            await asyncio.sleep(RECONNECT_SECONDS)

    def _handle(self, event: EngineEvent) -> None:
        self._memory.note(event)
        if event.action == "pause":
            message = f"the container of role {event.role} was paused"
            hint = f"Resume it with `docker unpause`, or `sandbox recover {event.session_id.hex[:8]}`, then try again."
            error = GuestError(message, code="container_paused", kind=Kind.UNAVAILABLE, hint=hint)
            self._engine.guest(event.session_id, event.role).interrupt(error)
        if event.action != "start":
            self.check(event.session_id)

    async def _run_checks(self) -> None:
        """Check pending sessions until the check of each is conclusive."""
        while True:
            await self._wake.wait()
            pending, self._pending = self._pending, set()
            self._wake.clear()
            slots = asyncio.Semaphore(CONCURRENT_CHECKS)
            conclusive = await asyncio.gather(*(self._run_check(session_id, slots) for session_id in pending))
            if not all(conclusive):
                await asyncio.sleep(RECHECK_SECONDS)
                self._wake.set()

    async def _run_check(self, session_id: UUID, slots: asyncio.Semaphore) -> bool:
        """Check one session, and make the check pending again if it is not conclusive."""
        conclusive = False
        try:
            async with slots:
                conclusive = await self._check_session(session_id)
        except SandboxError as error:
            log.info("session %s will be checked again: %s", session_id, error)
        if not conclusive:
            self._pending.add(session_id)
        return conclusive

    async def _relist_periodically(self) -> None:
        """Find what no event reported, because the engine or this service was down at the time."""
        answered = False
        while True:
            try:
                await self._relist()
            except SandboxError as error:
                log.info("containers cannot be listed now: %s", error)
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            if not answered:
                answered = True
                self._on_engine()
            await asyncio.sleep(RELIST_SECONDS)

    async def _relist(self) -> None:
        # The sessions are read first: a session launched between the two reads is then not among those compared.
        async with self._db.read() as conn:
            sessions = await recovery.at_rest(conn)
        resources = await self._engine.list_resources()
        running = {
            r.name for r in resources if r.kind is ResourceKind.CONTAINER and r.status == "running" and r.connected
        }
        for session in sessions:
            names = (container_name(session.session_id, role) for role in session.containers)
            in_error = session.status is SessionStatus.ERROR
            if in_error or any(name not in running for name in names) or needs_polling(session):
                self.check(session.session_id)
            elif session.status is SessionStatus.RUNNING:
                self._apps.watch(session)
        for session_id in self._apps.sessions - {session.session_id for session in sessions}:
            self.check(session_id)

    async def _check_session(self, session_id: UUID) -> bool:
        """Compare one session with the engine and its guest agents, and record a loss. False: check again soon."""
        async with self._db.read() as conn:
            session = await store.get(conn, session_id)
        if session is None or not _is_watched(session):
            self._apps.unwatch(session_id)
            # A session that is being launched is checked again until its launch has ended. The end of a launch that
            # waits is reported, so there is no need to look for it.
            return session is None or session.work is not Work.LAUNCH or session.waiting is not None
        states = await self._inspect(session)
        if any(state is not None and state.status == "removing" for state in states.values()):
            return False
        error = container_loss(session_id, states)
        if error is None and (error := await self._silence(session)) is not None:
            # Guest agents also fall silent because their container ends, or because the engine does.
            states = await self._inspect(session)
            error = container_loss(session_id, states) or error
        if error is not None:
            known = session.error is not None and session.error.code == error.code
            return known or await self._mark_lost(session, error, states, [])
        if session.status is SessionStatus.ERROR:
            await self._mark_back(session, states)
            return False
        if session.status is SessionStatus.RUNNING:
            return await self._check_apps(session, states)
        return True

    async def _inspect(self, session: Session) -> dict[str, ContainerState | None]:
        """The states of the session's containers."""
        session_id = session.session_id
        states = await for_each(session.containers, lambda role: self._engine.inspect_container(session_id, role))
        return self._memory.corrected(states)

    async def _silence(self, session: Session) -> SessionError | None:
        """The error of a session whose containers run, if a guest agent in them does not answer."""

        async def ask(role: str) -> bool:
            try:
                async with asyncio.timeout(2 * ANSWER_SECONDS):
                    await self._engine.guest(session.session_id, role).wait_ready(ANSWER_SECONDS)
            except (GuestError, TimeoutError) as error:
                log.info("role %s of session %s does not answer: %s", role, session.session_id, error)
                return False
            return True

        answers = await for_each(session.containers, ask)
        silent = next((role for role, answered in answers.items() if not answered), None)
        if silent is None:
            return None
        message = f"the container of role {silent} runs, but the guest agent in it does not answer"
        hint = f"It may be overloaded. `sandbox recover {session.session_id.hex[:8]}` makes it anew; files are kept."
        return SessionError("agent_unreachable", message, hint, None)

    async def _mark_back(self, session: Session, states: dict[str, ContainerState | None]) -> None:
        """Record that the session's error has passed."""
        observed = {role: _as_observed(info, states[role]) for role, info in session.containers.items()}
        async with self._db.transaction() as conn:
            back = await recovery.mark_back(conn, session, observed)
        if back:
            log.info("the session goes on", extra={"session_id": str(session.session_id)})
            self._on_change(session.session_id)

    async def _check_apps(self, session: Session, states: dict[str, ContainerState | None]) -> bool:
        """Check the apps of a session whose containers all run. False: check again soon."""
        hide = self._environments.opened(session).values.redactor()
        exits = await find_app_exits(self._engine, session, hide, self._causes)
        if any(app_exit.outcome is ExitOutcome.UNDECIDED for app_exit in exits):
            return False
        if lost := [app_exit for app_exit in exits if app_exit.outcome is ExitOutcome.LOST]:
            return await self._mark_lost(session, lost[0].error(session.session_id), states, exits)
        for app_exit in exits:
            if session.containers[app_exit.role].app != EXITED:
                async with self._db.transaction() as conn:
                    await recovery.record_app_exit(conn, session, app_exit.role, app_exit.exit_code, app_exit.message)
        self._apps.watch(replace(session, containers=_with_exits(session.containers, exits)))
        return True

    async def _mark_lost(
        self, session: Session, error: SessionError, states: dict[str, ContainerState | None], exits: list[AppExit]
    ) -> bool:
        observed = {role: _as_observed(info, states[role]) for role, info in session.containers.items()}
        async with self._db.transaction() as conn:
            lost = await recovery.mark_lost(conn, session, error, _with_exits(observed, exits))
        if lost:
            log.warning(
                "session lost: %s: %s", error.code, error.message, extra={"session_id": str(session.session_id)}
            )
            self._apps.unwatch(session.session_id)
            self._on_change(session.session_id)
        return lost


def _is_watched(session: Session) -> bool:
    """Whether the session is at rest and should run, or is in an error that may pass."""
    if session.work is not None:
        return False
    error = session.error
    passing = error is not None and error.stage is None and error.code in PASSING_LOSSES
    return session.status in (SessionStatus.READY, SessionStatus.RUNNING) or (
        session.status is SessionStatus.ERROR and passing
    )


def container_loss(session_id: UUID, states: dict[str, ContainerState | None]) -> SessionError | None:
    """The error of a session whose containers are in these states; None if all of them run."""
    loss = find_loss(states)
    if loss is None:
        return None
    hint = f"Bring it back with `sandbox recover {session_id.hex[:8]}`: files in /workspace are kept."
    if loss.code == "container_paused":
        hint = f"Resume it with `docker unpause`; `sandbox recover {session_id.hex[:8]}` also starts its app again."
    return SessionError(loss.code, loss.message, hint, None)


def _as_observed(info: ContainerInfo, state: ContainerState | None) -> ContainerInfo:
    if state is None:
        return replace(info, status="gone", ip=None)
    return ContainerInfo(state.id, state.ip, info.runtime, state.status, info.app, info.exit_code)


def _with_exits(containers: dict[str, ContainerInfo], exits: list[AppExit]) -> dict[str, ContainerInfo]:
    codes = {app_exit.role: app_exit.exit_code for app_exit in exits}
    return {
        role: replace(info, app=EXITED, exit_code=codes[role]) if role in codes else info
        for role, info in containers.items()
    }
