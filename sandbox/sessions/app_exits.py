"""Detects that the app of a running session has exited, and decides what the exit means for the session.

`AppExitMonitor` has one waiting request at the guest agent of each role, which answers when the app exits, so it need
not poll. An app counts as lost when its process has exited and its port (if it has one) still refuses connections
`GRACE_SECONDS` later: a user may have started the app again by hand, or it may run in the background.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import UUID

from sandbox.concurrency import for_each
from sandbox.domain.plan import RolePlan
from sandbox.domain.processes import ProcessKind, process_name
from sandbox.domain.redaction import Redactor
from sandbox.domain.session import Session, SessionError
from sandbox.engine.base import Engine
from sandbox.engine.guest import Guest
from sandbox.engine.guest_data import ProcessInfo
from sandbox.errors import GuestError, SandboxError
from sandbox.launch.causes.cause import Cause
from sandbox.launch.causes.finding import Causes
from sandbox.launch.environment import WORKSPACE, role_root
from sandbox.launch.output import last_lines
from sandbox.launch.process_exit import describe_exit

log = logging.getLogger(__name__)

#: Time between an app's exit and the decision: a user may be restarting it, or its container is about to stop too.
GRACE_SECONDS = 5.0
#: Pause before a guest agent that did not answer is asked again.
RETRY_SECONDS = 10.0
ANSWER_SECONDS = 10.0
#: Guest agents that are connected to at the same time when the service starts with many sessions.
CONCURRENT_GUESTS = 32
EXITED = "exited"


class ExitOutcome(StrEnum):
    """What the exit of an app means for its session."""

    #: Not known yet: check again later.
    UNDECIDED = "undecided"
    #: The app has completed its work, or another process serves its port.
    CONTINUES = "continues"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class AppExit:
    """The exit of one role's app."""

    role: str
    outcome: ExitOutcome
    #: None if the guest agent has no record of the process.
    exit_code: int | None
    #: For people: what happened and, if the app is lost, its last lines.
    message: str
    out_of_memory: bool = False
    #: How to correct the cause, if its last lines name one.
    hint: str = ""

    def error(self, session_id: UUID) -> SessionError:
        """The error of a session that has lost this app."""
        again = f"`sandbox recover {session_id.hex[:8]}`"
        if self.out_of_memory:
            more = f"`sandbox relaunch {session_id.hex[:8]} --memory MIB`"
            hint = f"Have the app use less and start it with {again}, or give it more with {more}. Files are kept."
            return SessionError("out_of_memory", self.message, hint, None)
        correct = self.hint.rstrip(".") or "Correct what its last lines name, if anything"
        hint = f"{correct}; then {again} starts it again, files are kept."
        return SessionError("app_exited", self.message, hint, None)


def roles_with_app(session: Session) -> dict[str, RolePlan]:
    """The roles for which the launch started an app."""
    if session.plan is None:
        return {}
    return {role: plan for role, plan in session.plan.roles.items() if plan.start and role in session.containers}


def needs_polling(session: Session) -> bool:
    """Whether a process other than the launched app serves a role's port. No guest agent reports the exit of that
    process."""
    exited = {role for role, info in session.containers.items() if info.app == EXITED}
    return any(plan.port is not None for role, plan in roles_with_app(session).items() if role in exited)


async def find_app_exits(engine: Engine, session: Session, hide: Redactor, causes: Causes) -> list[AppExit]:
    """The apps of a running session that have exited, their last lines without secrets.

    An app whose guest agent does not answer is left out.
    """
    plans = roles_with_app(session)
    exits = await for_each(plans, lambda role: _find_exit(engine, session, role, plans[role], causes))
    found = [app_exit for app_exit in exits.values() if app_exit is not None]
    return [replace(one, message=hide.text(one.message), hint=hide.text(one.hint)) for one in found]


async def _find_exit(engine: Engine, session: Session, role: str, plan: RolePlan, causes: Causes) -> AppExit | None:
    guest = engine.guest(session.session_id, role)
    root = role_root(session.plan, role) if session.plan is not None else WORKSPACE
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            process = await guest.process(process_name(ProcessKind.APP, session.run_id))
    except (SandboxError, TimeoutError):
        return None
    if process is not None and process.running:
        return None
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await _classify(
                guest, role, plan, process, lambda lines: causes.find(session.session_id, lines, root)
            )
    except (SandboxError, TimeoutError) as error:
        log.debug("the app exit of %s in session %s cannot be classified: %s", role, session.session_id, error)
        return AppExit(role, ExitOutcome.UNDECIDED, None, f"{role}: {describe_exit(process)}")


async def _classify(
    guest: Guest,
    role: str,
    plan: RolePlan,
    process: ProcessInfo | None,
    find_cause: Callable[[list[str]], Awaitable[Cause]],
) -> AppExit:
    code = process.exit_code if process else None
    what = f"{role}: `{plan.start}` {describe_exit(process)}"
    out_of_memory = process is not None and process.out_of_memory
    just_now = process is not None and time.time() - (process.ended_at or 0.0) < GRACE_SECONDS
    if just_now and not out_of_memory:
        return AppExit(role, ExitOutcome.UNDECIDED, code, what)
    if plan.port is not None and await _is_open(guest, plan.port):
        message = f"{what}; port {plan.port} still answers, so the session goes on"
        return AppExit(role, ExitOutcome.CONTINUES, code, message)
    if plan.port is None and code == 0:
        return AppExit(role, ExitOutcome.CONTINUES, code, f"{what}: its work is done, and the session goes on")
    if out_of_memory:
        message = f"{role}: `{plan.start}` was killed for using too much memory"
        return AppExit(role, ExitOutcome.LOST, code, message, out_of_memory=True)
    if process is None:
        return AppExit(role, ExitOutcome.LOST, code, f"{what}: its container was restarted without it")
    cause = await find_cause(await last_lines(guest, process, limit=300))
    output = f":\n{cause.excerpt}" if cause.excerpt else " and printed nothing"
    return AppExit(role, ExitOutcome.LOST, code, f"{what} after {_duration(process)}{output}", hint=cause.hint)


async def _is_open(guest: Guest, port: int) -> bool:
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


class AppExitMonitor:
    """Waits at the guest agents for apps to exit, and calls `on_exit(session_id)` when a session should be checked.

    It has one waiting request for each role. After a restart it misses nothing: the guest agent reports an earlier exit
    at once. Not thread-safe; use it in one event loop.
    """

    def __init__(self, engine: Engine, on_exit: Callable[[UUID], None]) -> None:
        self._engine = engine
        self._on_exit = on_exit
        self._connecting = asyncio.Semaphore(CONCURRENT_GUESTS)
        #: By session: its run, and the waiting task of each role.
        self._waits: dict[UUID, tuple[UUID, dict[str, asyncio.Task[None]]]] = {}

    @property
    def sessions(self) -> set[UUID]:
        """The sessions whose apps are monitored."""
        return set(self._waits)

    def watch(self, session: Session) -> None:
        """Wait for the session's apps to exit, except those recorded as exited. Idempotent."""
        run, waits = self._waits.get(session.session_id, (session.run_id, {}))
        if run != session.run_id:
            self.unwatch(session.session_id)
            waits = {}
        for role in roles_with_app(session):
            if role not in waits and session.containers[role].app != EXITED:
                waits[role] = asyncio.create_task(self._wait(session, role), name=f"app-{session.session_id}-{role}")
        if waits:
            self._waits[session.session_id] = (session.run_id, waits)

    def unwatch(self, session_id: UUID) -> None:
        """Stop waiting for the session's apps, if they are monitored."""
        _, waits = self._waits.pop(session_id, (None, {}))
        for task in waits.values():
            task.cancel()

    async def close(self) -> None:
        """Stop all waiting. The apps go on."""
        tasks = [task for _, waits in self._waits.values() for task in waits.values()]
        for session_id in self.sessions:
            self.unwatch(session_id)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self, session: Session, role: str) -> None:
        guest, name = self._engine.guest(session.session_id, role), process_name(ProcessKind.APP, session.run_id)
        try:
            async with self._connecting, asyncio.timeout(ANSWER_SECONDS):
                process = await guest.process(name)
            if process is not None and process.running:
                await guest.wait(name)
        except (SandboxError, TimeoutError) as error:
            # If the container is gone, the engine's events report it. The check that follows the pause watches the
            # session again if it is still running.
            if not (isinstance(error, GuestError) and error.code == "process_not_found"):
                await asyncio.sleep(RETRY_SECONDS)
        run, waits = self._waits.get(session.session_id, (None, {}))
        if run == session.run_id:
            waits.pop(role, None)
            if not waits:
                del self._waits[session.session_id]
        self._on_exit(session.session_id)
