"""The apps of sessions at rest: who waits for their ends, and what an end means for the session.

The guest agent of each role is asked once for the end of its app and answers when there is one, so nothing is asked
again and again. An app has ended for good when its process has, and its port (if the plan gives it one) is silent
too, some seconds later: whoever started it anew by hand, or has it run in the background, has lost nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sandbox.concurrency import for_each
from sandbox.domain.plan import RolePlan
from sandbox.domain.processes import ProcessKind, process_name
from sandbox.domain.session import Session, SessionError
from sandbox.engine.base import Engine, Guest, ProcessInfo
from sandbox.errors import GuestError, SandboxError
from sandbox.launch.endings import how_it_ended
from sandbox.launch.output import last_lines

log = logging.getLogger(__name__)

#: Between an app's end and its being taken for lost: somebody may be starting it anew, or its container is ending.
GRACE_SECONDS = 5.0
#: A guest agent that has not answered is asked again after this long.
RETRY_SECONDS = 10.0
ANSWER_SECONDS = 10.0
#: Guest agents connected to at once when many sessions are found at the start.
CONCURRENT_GUESTS = 32
EXITED = "exited"


class Fate(StrEnum):
    """What the end of an app means."""

    #: Too early to say.
    UNDECIDED = "undecided"
    #: Its work is done, or something else serves its port: the session goes on.
    GOES_ON = "goes_on"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class AppEnd:
    """The app of one role, which has ended."""

    role: str
    fate: Fate
    #: None if the guest agent knows nothing of it any more.
    exit_code: int | None
    #: For people: what happened and, if it is lost, its last lines.
    message: str
    out_of_memory: bool = False

    def error(self, session_id: UUID) -> SessionError:
        """Why the session is lost by it."""
        again = f"`sandbox recover {session_id.hex[:8]}`"
        if self.out_of_memory:
            hint = f"Have the app use less, or raise SANDBOX_MEMORY_MB; then {again} starts it again, files are kept."
            return SessionError("out_of_memory", self.message, hint, None)
        hint = f"Correct what its last lines name, if anything; then {again} starts it again, files are kept."
        return SessionError("app_exited", self.message, hint, None)


def roles_with_app(session: Session) -> dict[str, RolePlan]:
    """The roles whose app should run: the launch started one."""
    if session.plan is None:
        return {}
    return {role: what for role, what in session.plan.roles.items() if what.start and role in session.containers}


def has_unwatched_app(session: Session) -> bool:
    """Whether something serves a role's port that is not the app which was launched: nobody tells of its end."""
    ended = {role for role, info in session.containers.items() if info.app == EXITED}
    return bool(ended) and any(plan.port is not None for role, plan in roles_with_app(session).items() if role in ended)


async def ended_apps(engine: Engine, session: Session) -> list[AppEnd]:
    """The apps of a running session that have ended. Of a guest agent that does not answer nothing is known: its app
    is not among them."""
    plans = roles_with_app(session)
    ends = await for_each(plans, lambda role: _end_of(engine, session, role, plans[role]))
    return [end for end in ends.values() if end is not None]


async def _end_of(engine: Engine, session: Session, role: str, plan: RolePlan) -> AppEnd | None:
    guest = engine.guest(session.session_id, role)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            process = await guest.process(process_name(ProcessKind.APP, session.run_id))
    except (SandboxError, TimeoutError):
        return None
    if process is not None and process.running:
        return None
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await _judge(guest, role, plan, process)
    except (SandboxError, TimeoutError) as error:
        log.debug("the end of %s in session %s cannot be looked into: %s", role, session.session_id, error)
        return AppEnd(role, Fate.UNDECIDED, None, f"{role}: {how_it_ended(process)}")


async def _judge(guest: Guest, role: str, plan: RolePlan, process: ProcessInfo | None) -> AppEnd:
    code = process.exit_code if process else None
    what = f"{role}: `{plan.start}` {how_it_ended(process)}"
    killed_for_memory = process is not None and process.out_of_memory
    just_now = process is not None and time.time() - (process.ended_at or 0.0) < GRACE_SECONDS
    if just_now and not killed_for_memory:
        return AppEnd(role, Fate.UNDECIDED, code, what)
    if plan.port is not None and await _answers(guest, plan.port):
        return AppEnd(role, Fate.GOES_ON, code, f"{what}; port {plan.port} still answers, so the session goes on")
    if plan.port is None and code == 0:
        return AppEnd(role, Fate.GOES_ON, code, f"{what}: its work is done, and the session goes on")
    if killed_for_memory:
        message = f"{role}: `{plan.start}` was killed for using too much memory"
        return AppEnd(role, Fate.LOST, code, message, out_of_memory=True)
    if process is None:
        return AppEnd(role, Fate.LOST, code, f"{what}: its container was started anew, without it")
    lines = await last_lines(guest, process)
    said = "; its last lines:\n" + "\n".join(lines) if lines else " and printed nothing"
    return AppEnd(role, Fate.LOST, code, f"{what} after {_duration(process)}{said}")


async def _answers(guest: Guest, port: int) -> bool:
    try:
        (await guest.tunnel(port)).close()
    except GuestError as error:
        if error.code == "port_not_open":
            return False
        raise
    return True


def _duration(process: ProcessInfo) -> str:
    seconds = max(0, round((process.ended_at or process.started_at) - process.started_at))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


class AppWatch:
    """Waits at the guest agents for the ends of apps, and calls `ended` with the session when there is something to
    look at.

    It holds one waiting request a role and nothing that a restart would miss: an app that has ended meanwhile is told
    of at once. Belongs to one event loop.
    """

    def __init__(self, engine: Engine, ended: Callable[[UUID], None]) -> None:
        self._engine = engine
        self._ended = ended
        self._connecting = asyncio.Semaphore(CONCURRENT_GUESTS)
        #: By session: the run, and the waits for its roles' apps.
        self._waits: dict[UUID, tuple[UUID, dict[str, asyncio.Task[None]]]] = {}

    @property
    def sessions(self) -> set[UUID]:
        """Those whose apps are waited for."""
        return set(self._waits)

    def follow(self, session: Session) -> None:
        """Wait for the ends of its apps, but for those that are known to have ended; done already is done."""
        run, waits = self._waits.get(session.session_id, (session.run_id, {}))
        if run != session.run_id:
            self.leave(session.session_id)
            waits = {}
        for role in roles_with_app(session):
            if role not in waits and session.containers[role].app != EXITED:
                waits[role] = asyncio.create_task(self._wait(session, role), name=f"app-{session.session_id}-{role}")
        if waits:
            self._waits[session.session_id] = (session.run_id, waits)

    def leave(self, session_id: UUID) -> None:
        """It has no apps to wait for now."""
        _, waits = self._waits.pop(session_id, (None, {}))
        for task in waits.values():
            task.cancel()

    async def close(self) -> None:
        """Wait for nothing any more. Apps go on."""
        tasks = [task for _, waits in self._waits.values() for task in waits.values()]
        for session_id in self.sessions:
            self.leave(session_id)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self, session: Session, role: str) -> None:
        guest, name = self._engine.guest(session.session_id, role), process_name(ProcessKind.APP, session.run_id)
        try:
            async with self._connecting, asyncio.timeout(ANSWER_SECONDS):
                process = await guest.process(name)
            if process is not None and process.running:
                await guest.wait(name)
        except (SandboxError, TimeoutError) as error:
            # A container that is gone is told of by the engine; the session is looked at again before it is followed.
            if not (isinstance(error, GuestError) and error.code == "process_not_found"):
                await asyncio.sleep(RETRY_SECONDS)
        run, waits = self._waits.get(session.session_id, (None, {}))
        if run == session.run_id:
            waits.pop(role, None)
            if not waits:
                del self._waits[session.session_id]
        self._ended(session.session_id)
