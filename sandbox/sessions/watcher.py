"""Says so when a container of a session at rest dies or vanishes, or its app ends: at the word of the engine and of the
guest agents, with a slow relist behind it.

Sessions that are being launched or ended are left alone (a launch notices by itself), and nothing is done on an engine
that cannot be asked. Every replica watches; the first to write has written, the others find the row changed.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import replace
from uuid import UUID

from sandbox.concurrency import for_each
from sandbox.db.connection import Database
from sandbox.domain.session import ContainerInfo, Session, SessionError, SessionStatus, Work
from sandbox.engine.base import ContainerState, Engine, EngineEvent, ResourceKind
from sandbox.engine.labels import container_name
from sandbox.errors import EngineError, SandboxError
from sandbox.sessions import store
from sandbox.sessions.apps import EXITED, AppEnd, AppWatch, Fate, ended_apps, has_unwatched_app
from sandbox.sessions.recovery import store as recovery

log = logging.getLogger(__name__)

RECONNECT_SECONDS = 1.0
RELIST_SECONDS = 30.0
#: Sessions whose state could not be settled (a launch is about to end, the database is away) are looked at this often.
SETTLE_SECONDS = 0.5
CONCURRENT_LOOKS = 16
_AT_REST = (SessionStatus.READY, SessionStatus.RUNNING)
_KILLED = 137


class Watcher:
    """Follows the engine's events and the apps' ends. `start` and `close`; holds nothing that a restart would miss."""

    def __init__(self, db: Database, engine: Engine) -> None:
        self._db = db
        self._engine = engine
        self._apps = AppWatch(engine, self.look_at)
        #: Sessions to be looked at.
        self._doubtful: set[UUID] = set()
        self._settled = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._loops = [
            asyncio.create_task(self._follow(), name="engine-watcher"),
            asyncio.create_task(self._settle(), name="engine-watcher-settle"),
        ]

    async def close(self) -> None:
        for task in self._loops:
            task.cancel()
        if self._loops:
            await asyncio.wait(self._loops, timeout=3)
        await self._apps.close()

    def look_at(self, session_id: UUID) -> None:
        """Look at this session soon: something may have happened to it, or its launch has ended."""
        self._doubtful.add(session_id)
        self._settled.set()

    async def _follow(self) -> None:
        while True:
            relisting = asyncio.create_task(self._relist_forever(), name="engine-watcher-relist")
            try:
                # Before the list of the relist: what happens between the two is told of.
                async with aclosing(self._engine.events()) as events:  # type: ignore[type-var]
                    async for event in events:
                        self._note(event)
            except EngineError as error:
                log.warning("the engine's events cannot be read: %s", error)
            finally:
                relisting.cancel()
                await asyncio.wait({relisting})
            await asyncio.sleep(RECONNECT_SECONDS)

    def _note(self, event: EngineEvent) -> None:
        if event.action != "start":
            self.look_at(event.session_id)

    async def _settle(self) -> None:
        """Look at doubtful sessions until each is found well, is said to be lost, or is over."""
        while True:
            await self._settled.wait()
            doubtful, self._doubtful = self._doubtful, set()
            self._settled.clear()
            slots = asyncio.Semaphore(CONCURRENT_LOOKS)
            settled = await asyncio.gather(*(self._settle_one(session_id, slots) for session_id in doubtful))
            if not all(settled):
                await asyncio.sleep(SETTLE_SECONDS)
                self._settled.set()

    async def _settle_one(self, session_id: UUID, slots: asyncio.Semaphore) -> bool:
        """Look at one session; if that leaves something open, it stays doubtful."""
        settled = False
        try:
            async with slots:
                settled = await self._look(session_id)
        except SandboxError as error:
            log.info("session %s is looked at later: %s", session_id, error)
        if not settled:
            self._doubtful.add(session_id)
        return settled

    async def _relist_forever(self) -> None:
        """Find what no event told of: it came while the engine, or this service, was away."""
        while True:
            try:
                await self._relist()
            except SandboxError as error:
                log.info("containers are listed later: %s", error)
            await asyncio.sleep(RELIST_SECONDS)

    async def _relist(self) -> None:
        # In this order: a session that is launched between the two is not among those we look for.
        async with self._db.read() as conn:
            sessions = await recovery.at_rest(conn)
        resources = await self._engine.list_resources()
        running = {r.name for r in resources if r.kind is ResourceKind.CONTAINER and r.status == "running"}
        for session in sessions:
            names = (container_name(session.session_id, role) for role in session.containers)
            if any(name not in running for name in names) or has_unwatched_app(session):
                self.look_at(session.session_id)
            elif session.status is SessionStatus.RUNNING:
                self._apps.follow(session)
        for session_id in self._apps.sessions - {session.session_id for session in sessions}:
            self.look_at(session_id)

    async def _look(self, session_id: UUID) -> bool:
        """Compare one session with the engine and its guest agents; True when there is nothing more to look at."""
        async with self._db.read() as conn:
            session = await store.get(conn, session_id)
        if session is None or session.work is not None or session.status not in _AT_REST:
            self._apps.leave(session_id)
            # A launch that is under way is looked at again when it has ended.
            return session is None or session.work is not Work.LAUNCH
        states = await for_each(session.containers, lambda role: self._engine.inspect_container(session_id, role))
        if any(state is not None and state.status == "removing" for state in states.values()):
            return False
        error = loss(session_id, states)
        if error is not None:
            return await self._mark_lost(session, error, states, [])
        if session.status is SessionStatus.RUNNING:
            return await self._look_at_apps(session, states)
        return True

    async def _look_at_apps(self, session: Session, states: dict[str, ContainerState | None]) -> bool:
        """Of a session whose containers run."""
        ends = await ended_apps(self._engine, session)
        if any(end.fate is Fate.UNDECIDED for end in ends):
            return False
        if lost := [end for end in ends if end.fate is Fate.LOST]:
            return await self._mark_lost(session, lost[0].error(session.session_id), states, ends)
        for end in ends:
            if session.containers[end.role].app != EXITED:
                async with self._db.transaction() as conn:
                    await recovery.note_app_end(conn, session, end.role, end.exit_code, end.message)
        known = {end.role: end for end in ends}
        self._apps.follow(replace(session, containers=_with_ends(session.containers, known)))
        return True

    async def _mark_lost(
        self, session: Session, error: SessionError, states: dict[str, ContainerState | None], ends: list[AppEnd]
    ) -> bool:
        found = {role: _as_found(info, states[role]) for role, info in session.containers.items()}
        containers = _with_ends(found, {end.role: end for end in ends})
        async with self._db.transaction() as conn:
            lost = await recovery.mark_lost(conn, session, error, containers)
        if lost:
            log.warning(
                "session lost: %s: %s", error.code, error.message, extra={"session_id": str(session.session_id)}
            )
            self._apps.leave(session.session_id)
        return lost


def loss(session_id: UUID, states: dict[str, ContainerState | None]) -> SessionError | None:
    """Why a session whose containers are found like this is lost; None if all run."""
    hint = f"Bring it back with `sandbox recover {session_id.hex[:8]}`: files in /workspace are kept."
    for role, state in states.items():
        if state is None:
            return SessionError("container_gone", f"the container of role {role} is gone", hint, None)
        if state.status in ("running", "paused", "restarting"):
            continue
        if state.out_of_memory and state.exit_code == _KILLED:
            message = f"the container of role {role} was killed for using too much memory"
            return SessionError("out_of_memory", message, hint, None)
        ended = f"exited {state.exit_code}" if state.exit_code is not None else f"is {state.status}"
        return SessionError("container_exited", f"the container of role {role} {ended}", hint, None)
    return None


def _as_found(info: ContainerInfo, state: ContainerState | None) -> ContainerInfo:
    if state is None:
        return replace(info, status="gone", ip=None)
    return ContainerInfo(state.id, state.ip, info.runtime, state.status)


def _with_ends(containers: dict[str, ContainerInfo], ends: dict[str, AppEnd]) -> dict[str, ContainerInfo]:
    return {
        role: replace(info, app=EXITED, exit_code=ends[role].exit_code) if role in ends else info
        for role, info in containers.items()
    }
