"""Recovery without an admin: brings sessions back once what they were lost with is over.

When the container engine answers, at the start of the service and whenever it was away, the sessions are launched again
whose containers ended with it, and those whose launch it had failed. Launches that failed because a disk was full are
repeated when there is room. Sessions whose container or network something outside of them has ended or removed are
launched again some seconds later. Sessions whose app may have caused the error, and files that are lost, are left to
people.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable
from uuid import UUID

from sandbox.db.connection import Database
from sandbox.domain.failures import DISK_FULL, LOSSES_BY_APP, LOSSES_FROM_OUTSIDE
from sandbox.errors import DatabaseUnavailable, EngineError, SandboxError
from sandbox.sessions.recovery import store
from sandbox.sessions.recovery.compare import Action, Finding
from sandbox.sessions.recovery.service import RecoveryService

log = logging.getLogger(__name__)

#: Pause before the next attempt, while the engine does not answer or a session has changed just then.
RETRY_SECONDS = 2.0
#: Attempts that find the engine but leave something undone. What is left then is for an admin's recovery.
ATTEMPTS = 10
#: Seconds between two searches for sessions that a full disk or an outside event has ended. A session is launched again
#: at the second search that finds it: in between the free space is measured, and an operator who has removed a
#: container or a network on purpose has time to replace it.
ROUND_SECONDS = 10.0
#: How often a session is launched again within `WINDOW_SECONDS`: one whose launch fails, and one that is lost at rest.
MOST_LAUNCHES = 3
MOST_LOSSES = 20
WINDOW_SECONDS = 3600.0


class AutomaticRecovery:
    """Recovers in the background. Not thread-safe.

    Every replica does this. A session is launched again by one of them, because each change is a compare-and-set.
    """

    def __init__(self, db: Database, recovery: RecoveryService, *, has_room: Callable[[], bool]) -> None:
        """`has_room()` is whether there is disk space for something new."""
        self._db = db
        self._recovery = recovery
        self._has_room = has_room
        self._engine_answers = asyncio.Event()
        #: When a session in error was launched again, within the last `WINDOW_SECONDS`.
        self._repeated: defaultdict[UUID, deque[float]] = defaultdict(deque)
        #: The sessions, each with its run, that were lost when the last round looked.
        self._lost: set[tuple[UUID, UUID]] = set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="automatic-recovery")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def engine_answers(self) -> None:
        """To be called when the container engine answers for the first time, or again after it was away."""
        self._engine_answers.set()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROUND_SECONDS):
                    await self._engine_answers.wait()
            try:
                if self._engine_answers.is_set():
                    self._engine_answers.clear()
                    await self._after_the_engine()
                elif self._has_room():
                    await self._after_a_full_disk()
                    await self._after_a_loss()
            except SandboxError as error:
                log.info("the automatic recovery waits: %s", error)
            except Exception:
                log.exception("a round of the automatic recovery failed")

    async def _after_the_engine(self) -> None:
        """Bring back what ended with the engine. While something is left undone, it is tried again."""
        attempts = 0
        while attempts < ATTEMPTS:
            try:
                found = [finding for finding in await self._recovery.findings() if _ended_with_the_engine(finding)]
                if await self._launch_again(found, "the engine was away"):
                    return
                attempts += 1
            except (DatabaseUnavailable, EngineError) as error:
                log.info("the automatic recovery waits: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
        log.warning("the automatic recovery has left something undone: run `sandbox recover`")

    async def _after_a_full_disk(self) -> None:
        async with self._db.read() as conn:
            failed = await store.failed_launches(conn, DISK_FULL, ROUND_SECONDS)
        if failed:
            found = await self._recovery.findings(failed)
            await self._launch_again([finding for finding in found if _may_launch_again(finding)], "a disk was full")

    async def _after_a_loss(self) -> None:
        """Bring back what was lost to something outside and was so in the last round already."""
        async with self._db.read() as conn:
            lost = await store.lost(conn, LOSSES_FROM_OUTSIDE)
        due, self._lost = lost & self._lost, lost
        if due:
            found = await self._recovery.findings({session_id for session_id, _ in due})
            chosen = [finding for finding in found if _may_launch_again(finding)]
            await self._launch_again(chosen, "something outside has ended or removed a container or a network")

    async def _launch_again(self, found: list[Finding], why: str) -> bool:
        """Launch these sessions again; whether nothing is left to do."""
        chosen = [finding for finding in found if self._may_repeat(finding)]
        outcomes = await self._recovery.act(chosen)
        if chosen:
            log.info("%s: %d sessions are launched again", why, len(chosen))
        return all(outcome.outcome == "done" for outcome in outcomes)

    def _may_repeat(self, finding: Finding) -> bool:
        """Whether the session may be launched again; counts it if it is in error."""
        session = finding.session
        if session is None or session.error is None:
            return True
        most = MOST_LOSSES if session.error.stage is None else MOST_LAUNCHES
        now = time.monotonic()
        for session_id, times in list(self._repeated.items()):
            while times and now - times[0] > WINDOW_SECONDS:
                times.popleft()
            if not times:
                del self._repeated[session_id]
        if len(self._repeated[session.session_id]) >= most:
            return False
        self._repeated[session.session_id].append(now)
        return True


def _may_launch_again(finding: Finding) -> bool:
    return finding.session is not None and finding.action in (Action.RESTART, Action.RECREATE)


def _ended_with_the_engine(finding: Finding) -> bool:
    if finding.session is None or not _may_launch_again(finding):
        return False
    if any(resource.status == "paused" for resource in finding.found):
        return False  # Nothing has ended: it can be resumed by what paused it.
    error = finding.session.error
    return error is None or error.stage is not None or error.code not in LOSSES_BY_APP
