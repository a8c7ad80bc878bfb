"""How many records a session may have written: so many a minute, and as many at once."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from sandbox.errors import Kind, SandboxError
from sandbox.telemetry.otlp.receiver import TooManyRecords

#: Sessions remembered before those are forgotten that have their whole allowance again.
_REMEMBERED = 1_000


class BatchTooLarge(SandboxError):
    """One request has more records than a session may send in a minute."""

    code = "too_many_records_at_once"
    kind = Kind.TOO_LARGE


@dataclass(slots=True)
class _Left:
    records: float
    #: Of the clock: when that was so, and until when a request is refused unread.
    at: float
    refused_until: float = 0.0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Allowance:
    """Of one replica, in memory. Each session has its own; nothing of it waits."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._most = per_minute
        self._per_second = per_minute / 60
        self._sessions: dict[UUID, _Left] = {}

    def check(self, session_id: UUID) -> None:
        """Refuse, before it is read, what comes earlier than the session was told. Raises TooManyRecords."""
        left = self._sessions.get(session_id)
        if left is not None and (seconds := left.refused_until - self._clock()) > 0:
            raise _too_many(self._most, seconds)

    def turn(self, session_id: UUID) -> asyncio.Lock:
        """Held while one body of the session is taken: what is left is known only when the one before is counted."""
        return self._of(session_id).turn

    def most(self, session_id: UUID) -> int:
        """How many records may come now."""
        return int(self._now(self._of(session_id), self._clock()))

    def charge(self, session_id: UUID, records: int) -> None:
        """Count these records. Raises TooManyRecords or BatchTooLarge; they are not counted then."""
        if records > self._most:
            raise BatchTooLarge(
                f"{records} records at once are more than a session may send in a minute, {self._most}.",
                hint="Send smaller batches, or raise SANDBOX_SESSION_RECORDS_PER_MINUTE.",
            )
        now = self._clock()
        left = self._of(session_id)
        left.records = self._now(left, now)
        left.at = now
        if records > left.records:
            seconds = (records - left.records) / self._per_second
            left.refused_until = now + seconds
            raise _too_many(self._most, seconds)
        left.records -= records

    def _of(self, session_id: UUID) -> _Left:
        left = self._sessions.get(session_id)
        if left is None:
            now = self._clock()
            self._forget_full(now)
            left = self._sessions[session_id] = _Left(self._most, now)
        return left

    def _now(self, left: _Left, now: float) -> float:
        return min(self._most, left.records + (now - left.at) * self._per_second)

    def _forget_full(self, now: float) -> None:
        if len(self._sessions) >= _REMEMBERED:
            self._sessions = {
                key: left
                for key, left in self._sessions.items()
                if left.turn.locked() or self._now(left, now) < self._most
            }


@dataclass(frozen=True, slots=True)
class OfSession:
    """The allowance of one session."""

    allowance: Allowance
    session_id: UUID

    def most(self) -> int:
        return self.allowance.most(self.session_id)

    def charge(self, records: int) -> None:
        self.allowance.charge(self.session_id, records)


def _too_many(most: int, seconds: float) -> TooManyRecords:
    return TooManyRecords(
        f"This session has sent its {most} records of the minute.",
        hint="Send fewer: sample spans, raise the level of logs; or raise SANDBOX_SESSION_RECORDS_PER_MINUTE.",
        retry_after_seconds=math.ceil(seconds),
    )
