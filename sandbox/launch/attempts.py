"""Runs one stage of a launch, again after errors that may pass, and finds out what an error is the consequence of.

An engine that is away is waited for. Containers that were lost are replaced. Any other error of the engine or of a
guest agent is tried again a few times; `StageFailed` ends the run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import NoReturn

from sandbox.concurrency import for_each
from sandbox.domain.events import EventType, NewEvent
from sandbox.domain.failures import FAILURE_STAGES
from sandbox.domain.session import Session
from sandbox.domain.stages import StageName
from sandbox.engine.base import Engine
from sandbox.errors import DatabaseUnavailable, EngineError, GuestError, LostOwnership, SandboxError, StageFailed
from sandbox.launch.losses import MOST_REPLACEMENTS, ContainersLost, Loss, find_loss, stages_to_repeat
from sandbox.launch.outages import OUTAGES, LaunchWaits, Outages
from sandbox.launch.stage import Stage, StageContext, StageResult
from sandbox.launch.store import RunJournal

log = logging.getLogger(__name__)

ATTEMPTS = 4
#: Pause before a stage's failure is taken for its own, because a container that is being stopped first ends what runs
#: in it.
SETTLE_SECONDS = 0.3
#: How often `pipeline_log` is updated while a stage runs.
LOG_SECONDS = 5.0
#: The stages before there are containers. What the session's row says of some is left from an earlier run.
_WITHOUT_CONTAINERS = frozenset({StageName.PLAN, StageName.NETWORK, StageName.CONTAINERS})


def failure_code(stage: StageName, error: EngineError | GuestError) -> str:
    """The failure code of a launch that ends with this error: one of `FAILURE_STAGES`, to which lessons refer."""
    if error.code in FAILURE_STAGES or isinstance(error, GuestError):
        return error.code
    return "network_failed" if stage is StageName.NETWORK else "engine_error"


class Attempts:
    """The attempts at the stages of launches. One object serves all sessions; it has no state of a run."""

    def __init__(self, engine: Engine, stages: Mapping[StageName, Stage], *, engine_wait_seconds: float) -> None:
        self._engine = engine
        self._stages = stages
        self._outages = Outages(engine, engine_wait_seconds)

    async def run(self, name: StageName, context: StageContext, journal: RunJournal) -> StageResult:
        """Run the stage, again after transient errors, at most `ATTEMPTS` times.

        Raises StageFailed, LaunchWaits if the engine is away, and ContainersLost if stages are to be done again. The
        last two are recorded by then.
        """
        if context.session.waiting is not None:
            context.session = await self._end_wait(context.session, journal, name)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with _updating_log(journal):
                    return await self._stages[name].run(context)
            except (EngineError, GuestError) as error:
                await self._look_for_cause(name, context, journal)
                if attempt == ATTEMPTS:
                    raise StageFailed(failure_code(name, error), error.message, error.hint) from error
                log.warning("stage %s: %s; trying again", name, error.code, extra={"cause": str(error)})
                await asyncio.sleep(0.5 * 2**attempt)
            except ContainersLost as error:
                await self._replace(name, journal, error.loss)
            except (LostOwnership, DatabaseUnavailable):
                raise
            except StageFailed:
                # An app or an install also ends when its container is stopped, which takes a moment to be seen.
                if name not in _WITHOUT_CONTAINERS:
                    await asyncio.sleep(SETTLE_SECONDS)
                    await self._look_for_cause(name, context, journal)
                raise
            except SandboxError as error:
                raise StageFailed(error.code, error.message, error.hint) from error
            except Exception as error:
                log.exception("stage %s failed with an unexpected error", name)
                raise StageFailed(
                    "internal_error",
                    f"stage {name} failed: {type(error).__name__}",
                    "The service's log has the details.",
                ) from error
        raise AssertionError("unreachable")

    async def _look_for_cause(self, name: StageName, context: StageContext, journal: RunJournal) -> None:
        """Find out whether a failure is the consequence of an engine that is away or of a container that was lost.

        Raises what `_wait_for_engine` and `_replace` raise if it is.
        """
        away = await self._outages.find()
        if away is not None:
            await self._wait_for_engine(name, context, journal, away)
        if name in _WITHOUT_CONTAINERS:
            return
        session_id = context.session.session_id
        try:
            states = await for_each(
                context.session.containers, lambda role: self._engine.inspect_container(session_id, role)
            )
        except EngineError as error:
            log.info("containers cannot be inspected now: %s", error)
            return
        loss = find_loss(states)
        if loss is not None:
            await self._replace(name, journal, loss)

    async def _replace(self, name: StageName, journal: RunJournal, loss: Loss) -> NoReturn:
        """Raises ContainersLost once it is recorded which stages are done again to replace the containers, or
        StageFailed if the run has replaced containers too often."""
        if await journal.replacements() >= MOST_REPLACEMENTS:
            hint = "See what ends the container: its app's last lines, its memory limit, or others who use the engine."
            message = f"{loss.message}; it was brought back {MOST_REPLACEMENTS} times during this launch"
            raise StageFailed(loss.code, message, hint)
        how = "it is started again on its volume" if loss.ended else "it is brought back"
        line = f"{loss.message}: {how}, and the launch goes on from there"
        data = {"stage": name.value, "role": loss.roles[0], "stream": "system", "line": line}
        await journal.repeat(stages_to_repeat(name, loss), loss, NewEvent(EventType.LOG, data))
        raise ContainersLost(loss)

    async def _wait_for_engine(
        self, name: StageName, context: StageContext, journal: RunJournal, cause: EngineError
    ) -> NoReturn:
        """Raises LaunchWaits once it is recorded, or StageFailed `engine_away` if the launch may not wait."""
        outages = context.journal.progress.get(OUTAGES, 0)
        wait = self._outages.begin(name, outages, cause)
        await journal.wait(name, wait.waiting, [wait.event], outages + 1)
        raise LaunchWaits(f"the launch waits for the container engine at stage {name}")

    async def _end_wait(self, session: Session, journal: RunJournal, name: StageName) -> Session:
        """The session of a launch that has waited and can go on. Raises as `_wait_for_engine` does if it cannot."""
        if await self._outages.find() is None:
            await journal.resumed(self._outages.resumed(name))
            return replace(session, waiting=None)
        self._outages.check_overdue(session)
        await journal.release()
        raise LaunchWaits(f"the launch still waits for the container engine at stage {name}")


@asynccontextmanager
async def _updating_log(journal: RunJournal) -> AsyncIterator[None]:
    """Update `pipeline_log` every `LOG_SECONDS` during the block."""
    task = asyncio.create_task(_update_log_periodically(journal))
    try:
        yield
    finally:
        task.cancel()


async def _update_log_periodically(journal: RunJournal) -> None:
    while True:
        await asyncio.sleep(LOG_SECONDS)
        try:
            await journal.update_log()
        except SandboxError as error:
            log.info("pipeline_log could not be updated: %s", error)
