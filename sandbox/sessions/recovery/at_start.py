"""Recovery at the start of the service: brings back the sessions that ended with the engine or the machine.

After a reboot every container is stopped. Launches that were under way go on by themselves; this launches the sessions
again that were at rest. Sessions whose app may have caused the error, and files that are lost, are left to people.
"""

from __future__ import annotations

import asyncio
import logging

from sandbox.domain.failures import LOSSES_BY_APP
from sandbox.errors import DatabaseUnavailable, EngineError
from sandbox.sessions.recovery.compare import Action, Finding
from sandbox.sessions.recovery.service import RecoveryService

log = logging.getLogger(__name__)

#: Pause before the next attempt, while the engine does not answer or a session has changed just then.
RETRY_SECONDS = 2.0
#: Attempts that find the engine but leave something undone. What is left then is for an admin's recovery.
ATTEMPTS = 10


class StartRecovery:
    """Recovers once, in the background, as soon as the database and the engine answer. Not thread-safe.

    Every replica does this when it starts. A session is launched again by one of them, because each change is a
    compare-and-set.
    """

    def __init__(self, recovery: RecoveryService) -> None:
        self._recovery = recovery
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="recovery-at-start")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        attempts = 0
        while attempts < ATTEMPTS:
            try:
                if await self._recover():
                    return
                attempts += 1
            except (DatabaseUnavailable, EngineError) as error:
                log.info("the recovery at the start waits: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
        log.warning("the recovery at the start has left something undone: run `sandbox recover`")

    async def _recover(self) -> bool:
        """Launch sessions again; whether nothing is left to do."""
        found = [finding for finding in await self._recovery.findings() if _ended_with_the_engine(finding)]
        outcomes = await self._recovery.act(found)
        if found:
            log.info("recovery at the start: %d sessions are launched again", len(found))
        return all(outcome.outcome == "done" for outcome in outcomes)


def _ended_with_the_engine(finding: Finding) -> bool:
    if finding.session is None or finding.action not in (Action.RESTART, Action.RECREATE):
        return False
    if any(resource.status == "paused" for resource in finding.found):
        return False  # Nothing has ended: it can be resumed by what paused it.
    error = finding.session.error
    return error is None or error.stage is not None or error.code not in LOSSES_BY_APP
