"""How much a session may have written: so many records a minute, and as many at once.

A request counts for as many records as it has, or as it has KiB if these are more: reading it costs as well.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sandbox.errors import Kind, SandboxError
from sandbox.telemetry.otlp.receiver import TooManyRecords

#: Sessions remembered before those are forgotten that have their whole allowance again.
_REMEMBERED = 1_000


class BatchTooLarge(SandboxError):
    """One request counts for more records than a session may send in a minute."""

    code = "too_many_records_at_once"
    kind = Kind.TOO_LARGE


@dataclass(slots=True)
class _Left:
    records: float
    #: Of the clock: when that was so, and until when a request is refused unread.
    at: float
    refused_until: float = 0.0


class Allowance:
    """Of one replica, in memory. Each session has its own; nothing of it waits."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._most = per_minute
        self._per_second = per_minute / 60
        self._sessions: dict[UUID, _Left] = {}

    def admit(self, session_id: UUID, body_bytes: int) -> Callable[[int], None]:
        """Count a request by its length, before it is read; called with its records, what comes back counts the rest.

        Both raise TooManyRecords or BatchTooLarge. What comes earlier than the session was told is refused whatever it
        is.
        """
        left = self._sessions.get(session_id)
        if left is not None and (seconds := left.refused_until - self._clock()) > 0:
            raise _too_many(self._most, seconds)
        paid = max(1, math.ceil(body_bytes / 1024))
        self._charge(session_id, paid, 0)
        return lambda records: self._charge(session_id, max(records, paid), paid)

    def _charge(self, session_id: UUID, records: int, paid: int) -> None:
        if records > self._most:
            raise BatchTooLarge(
                f"{records} records at once are more than a session may send in a minute, {self._most}.",
                hint="Send smaller batches, or raise SANDBOX_SESSION_RECORDS_PER_MINUTE.",
            )
        records -= paid
        now = self._clock()
        left = self._sessions.get(session_id)
        if left is None:
            self._forget_full(now)
            left = self._sessions[session_id] = _Left(self._most, now)
        left.records = self._now(left, now)
        left.at = now
        if records > left.records:
            seconds = (records - left.records) / self._per_second
            left.refused_until = now + seconds
            raise _too_many(self._most, seconds)
        left.records -= records

    def _now(self, left: _Left, now: float) -> float:
        return min(self._most, left.records + (now - left.at) * self._per_second)

    def _forget_full(self, now: float) -> None:
        if len(self._sessions) >= _REMEMBERED:
            self._sessions = {key: left for key, left in self._sessions.items() if self._now(left, now) < self._most}


def _too_many(most: int, seconds: float) -> TooManyRecords:
    return TooManyRecords(
        f"This session has sent its {most} records of the minute.",
        hint="Send fewer: sample spans, raise the level of logs; or raise SANDBOX_SESSION_RECORDS_PER_MINUTE.",
        retry_after_seconds=math.ceil(seconds),
    )
