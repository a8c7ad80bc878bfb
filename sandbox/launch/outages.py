"""Launches that meet a container engine that is away: they wait for it, for a bounded time, and hold no slot meanwhile.

An engine is away if it does not answer a ping. Any other failure is an answer and is handled by the pipeline.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sandbox.domain.events import EventType, NewEvent
from sandbox.domain.session import Session, Waiting
from sandbox.domain.stages import StageName
from sandbox.engine.base import Engine
from sandbox.errors import EngineError, SandboxError, StageFailed

log = logging.getLogger(__name__)

#: What a launch waits for (`Waiting.reason`).
ENGINE = "engine"
ENGINE_AWAY = "engine_away"
#: How often one stage may meet an engine that is away, so that an engine that fails again and again ends the launch.
MOST_OUTAGES = 20
#: The key of a stage's progress that counts them.
OUTAGES = "outages"


class LaunchWaits(SandboxError):
    """The launch waits. It is released from its owner, and claimed again when it can go on or has waited too long."""

    code = "launch_waits"


@dataclass(frozen=True, slots=True)
class Wait:
    """What is recorded when a launch begins to wait."""

    waiting: Waiting
    event: NewEvent


class Outages:
    """Decides whether a launch waits for the engine."""

    def __init__(
        self, engine: Engine, wait_seconds: float, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """`wait_seconds` is the longest that a launch waits for an engine that is away, in one piece."""
        self._engine = engine
        self._longest = timedelta(seconds=wait_seconds)
        self._now = now

    async def find(self) -> EngineError | None:
        """The error with which the engine does not answer a ping; None if it answers."""
        try:
            await self._engine.ping()
        except EngineError as error:
            log.info("the container engine is away: %s", error)
            return error
        return None

    def begin(self, stage: StageName, outages: int, cause: EngineError) -> Wait:
        """The wait of a launch that has met an engine that is away; `outages` is how many this stage had before.

        Raises StageFailed `engine_away` if it may not wait.
        """
        if outages >= MOST_OUTAGES or not self._longest:
            raise self._given_up(f"it was away {outages + 1} times during this stage", cause.message)
        since = self._now()
        waiting = Waiting(ENGINE, since, since + self._longest)
        line = f"{cause.message}; the launch waits for it, until {waiting.until:%H:%M:%S} UTC at the latest"
        return Wait(waiting, _line(stage, line))

    def check_overdue(self, session: Session) -> None:
        """Raise StageFailed `engine_away` if the launch has waited for as long as it may."""
        if session.waiting is not None and session.waiting.until <= self._now():
            waited = (session.waiting.until - session.waiting.since).total_seconds()
            raise self._given_up(f"the launch waited {waited:.0f} s for it", "")

    @staticmethod
    def resumed(stage: StageName) -> NewEvent:
        """The event of a launch that goes on after it has waited."""
        return _line(stage, "the container engine answers again, and the launch goes on")

    @staticmethod
    def _given_up(why: str, cause: str) -> StageFailed:
        message = f"the container engine does not answer: {why}"
        return StageFailed(
            ENGINE_AWAY,
            f"{message}; {cause}" if cause else message,
            "Start the engine (`sandbox doctor` says how), then bring the session back: sandbox recover.",
        )


def _line(stage: StageName, line: str) -> NewEvent:
    return NewEvent(EventType.LOG, {"stage": stage.value, "role": "", "stream": "system", "line": line})
