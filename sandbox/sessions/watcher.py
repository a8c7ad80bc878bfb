"""Says so when a container of a session at rest dies or vanishes: at the engine's word, with a slow relist behind it.

Sessions that are being launched or ended are left alone (a launch notices by itself), and nothing is done on an engine
that cannot be asked. Every replica watches; the first to write has written, the others find the row changed.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import replace
from uuid import UUID

from sandbox.db.connection import Database
from sandbox.domain.session import ContainerInfo, Session, SessionError, SessionStatus, Work
from sandbox.engine.base import ContainerState, Engine, EngineEvent, ResourceKind
from sandbox.engine.labels import container_name
from sandbox.errors import AgentError, EngineError, SandboxError
from sandbox.launch.concurrently import for_each
from sandbox.sessions import store
from sandbox.sessions.app_output import app_process
from sandbox.sessions.recovery import store as recovery

log = logging.getLogger(__name__)

RECONNECT_SECONDS = 1.0
RELIST_SECONDS = 30.0
#: Sessions whose state could not be settled (a launch is about to end, the database is away) are looked at this often.
SETTLE_SECONDS = 0.5
#: A process killed for memory is gone from the agent's books within this time.
OUT_OF_MEMORY_LOOKS = 10
_HINT = "Bring it back with `sandbox recover`: files in /workspace are kept."
_KILLED = 137


class Watcher:
    """Follows the engine's events. `start` and `close`; holds nothing that a restart would miss."""

    def __init__(self, db: Database, engine: Engine) -> None:
        self._db = db
        self._engine = engine
        #: Sessions to be looked at again, with the roles whose app may have been killed for memory.
        self._doubtful: dict[UUID, set[str]] = {}
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
            roles = self._doubtful.setdefault(event.session_id, set())
            if event.action == "oom":
                roles.add(event.role)
            self._settled.set()

    async def _settle(self) -> None:
        """Look at doubtful sessions until each is found well, is said to be lost, or is over."""
        while True:
            await self._settled.wait()
            doubtful, self._doubtful = self._doubtful, {}
            self._settled.clear()
            for session_id, roles in doubtful.items():
                try:
                    settled = await self._look(session_id, roles)
                except SandboxError as error:
                    log.info("session %s is looked at later: %s", session_id, error)
                    settled = False
                if not settled:
                    self._doubtful.setdefault(session_id, set()).update(roles)
            if self._doubtful:
                await asyncio.sleep(SETTLE_SECONDS)
                self._settled.set()

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
            if any(container_name(session.session_id, role) not in running for role in session.containers):
                self._doubtful.setdefault(session.session_id, set())
                self._settled.set()

    async def _look(self, session_id: UUID, maybe_out_of_memory: set[str]) -> bool:
        """Compare one session with the engine; True when there is nothing more to look at."""
        async with self._db.read() as conn:
            session = await store.get(conn, session_id)
        if session is None or session.work is Work.TERMINATE:
            return True
        if session.work is Work.LAUNCH:
            return False
        if session.status not in (SessionStatus.READY, SessionStatus.RUNNING):
            return True
        states = await for_each(session.containers, lambda role: self._engine.inspect_container(session_id, role))
        if any(state is not None and state.status == "removing" for state in states.values()):
            return False
        error = loss(states)
        if error is None and session.status is SessionStatus.RUNNING:
            error = await self._app_loss(session, maybe_out_of_memory)
        if error is None:
            return True
        containers = {role: _as_found(info, states[role]) for role, info in session.containers.items()}
        async with self._db.transaction() as conn:
            lost = await recovery.mark_lost(conn, session, error, containers)
        if lost:
            log.warning("session lost: %s: %s", error.code, error.message, extra={"session_id": str(session_id)})
        return lost

    async def _app_loss(self, session: Session, roles: set[str]) -> SessionError | None:
        """Whether it was a role's app that the kernel killed for memory, rather than some command beside it."""
        for role in roles & session.containers.keys():
            agent = self._engine.agent(session.session_id, role)
            for _ in range(OUT_OF_MEMORY_LOOKS):
                try:
                    process = await agent.process(app_process(session))
                except AgentError:
                    break
                if process is not None and not process.running and process.out_of_memory:
                    return SessionError(
                        "out_of_memory", f"the app of role {role} was killed for using too much memory", _HINT, None
                    )
                if process is None:
                    break
                await asyncio.sleep(0.1)
        return None


def loss(states: dict[str, ContainerState | None]) -> SessionError | None:
    """Why a session whose containers are found like this is lost; None if all run."""
    for role, state in states.items():
        if state is None:
            return SessionError("container_gone", f"the container of role {role} is gone", _HINT, None)
        if state.status in ("running", "paused", "restarting"):
            continue
        if state.out_of_memory and state.exit_code == _KILLED:
            message = f"the container of role {role} was killed for using too much memory"
            return SessionError("out_of_memory", message, _HINT, None)
        ended = f"exited {state.exit_code}" if state.exit_code is not None else f"is {state.status}"
        return SessionError("container_exited", f"the container of role {role} {ended}", _HINT, None)
    return None


def _as_found(info: ContainerInfo, state: ContainerState | None) -> ContainerInfo:
    if state is None:
        return replace(info, status="gone", ip=None)
    return ContainerInfo(state.id, state.ip, info.runtime, state.status)
