"""How much a session may have written: so many records a minute, and as many at once.

A request counts for as many records as it has, or as it has KiB if these are more: reading it costs as well.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from uuid import UUID

from sandbox.errors import Kind, SandboxError
from sandbox.records.otlp.receiver import Limited

#: Sessions remembered before those are forgotten that have their whole allowance again.
_REMEMBERED = 1_000
_HINT = "raise SANDBOX_SESSION_RECORDS_PER_MINUTE."


class BatchTooLarge(SandboxError):
    """One request counts for more records than a session may send in a minute."""

    code = "too_many_records_at_once"
    kind = Kind.TOO_LARGE


class Allowance:
    """One session's. Its requests are taken in `turn`, so that each finds what the one before has left."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self.turn = asyncio.Lock()
        self._most = per_minute
        self._per_second = per_minute / 60
        self._clock = clock
        self._left: float = per_minute
        self._at = clock()
        self._refused_until = self._at

    def check(self) -> None:
        """Refuse, whatever it is, what comes earlier than the session was told. Raises Limited."""
        if (seconds := self._refused_until - self._clock()) > 0:
            raise self._limited(seconds)

    def admit(self, body_bytes: int) -> int:
        """Count a request by its length, before it is read; how many records it may have. Raises Limited, or
        BatchTooLarge."""
        self.check()
        units = _units(body_bytes)
        left = self._now()
        if units > left:
            raise self.exceeded(units)
        self._left = left - units
        return int(left)

    def charge(self, body_bytes: int, records: int) -> None:
        """Count the records that an admitted request had."""
        self._left = self._now() - max(0, records - _units(body_bytes))

    def exceeded(self, records: int) -> SandboxError:
        """The refusal of so many records, which are more than are left."""
        if records > self._most:
            return BatchTooLarge(
                f"{records} records at once are more than a session may send in a minute, {self._most}.",
                hint=f"Send smaller batches, or {_HINT}",
            )
        now = self._clock()
        self._refused_until = now + max(0.0, records - self._now()) / self._per_second
        return self._limited(self._refused_until - now)

    @property
    def is_whole(self) -> bool:
        return not self.turn.locked() and self._now() >= self._most

    def _now(self) -> float:
        """What is left now."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        return self._left

    def _limited(self, seconds: float) -> Limited:
        return Limited(
            f"This session has sent its {self._most} records of the minute.",
            hint=f"Send fewer: sample spans, raise the level of logs; or {_HINT}",
            retry_after_seconds=max(1, math.ceil(seconds)),
        )


def _units(body_bytes: int) -> int:
    return max(1, math.ceil(body_bytes / 1024))


class Allowances:
    """Of all sessions that report to this replica, in memory."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._sessions: dict[UUID, Allowance] = {}

    def of(self, session_id: UUID) -> Allowance:
        """The session's, whole if nothing is known of it."""
        if session_id not in self._sessions:
            if len(self._sessions) >= _REMEMBERED:
                self._sessions = {key: one for key, one in self._sessions.items() if not one.is_whole}
            self._sessions[session_id] = Allowance(self._per_minute, self._clock)
        return self._sessions[session_id]
