"""The rate limit of a session's records: a token bucket that holds one minute's records.

A request costs one unit for each record, or one for each KiB of its body if that is more, because parsing costs too.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from uuid import UUID

from sandbox.errors import Kind
from sandbox.records.otlp.outcome import TOO_MANY_RECORDS, Refused

#: When more sessions than this are in memory, those with a full bucket are dropped.
_MAX_SESSIONS = 1_000
_HINT = "raise SANDBOX_SESSION_RECORDS_PER_MINUTE."


class RateLimit:
    """The token bucket of one session. Not thread-safe.

    For each request, hold `lock`, call `admit` before the body is parsed and `charge` after it. If the body has more
    records than `admit` returned, answer what `exceeded` returns instead.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self.lock = asyncio.Lock()
        self._capacity = per_minute
        self._per_second = per_minute / 60
        self._clock = clock
        self._left: float = per_minute
        self._updated = clock()
        self._refused_until = self._updated

    def check(self) -> Refused | None:
        """The refusal of a request that comes before the time given in the last refusal."""
        seconds = self._refused_until - self._clock()
        return self._limited(seconds) if seconds > 0 else None

    def admit(self, body_bytes: int) -> int | Refused:
        """Charge a request by its length, before it is parsed; how many records it may have."""
        if (refused := self.check()) is not None:
            return refused
        cost = _cost(body_bytes)
        left = self._refill()
        if cost > left:
            return self.exceeded(cost)
        self._left = left - cost
        return int(left)

    def charge(self, body_bytes: int, records: int) -> None:
        """Charge the records of an admitted request, as far as they exceed what `admit` charged."""
        self._left = self._refill() - max(0, records - _cost(body_bytes))

    def exceeded(self, records: int) -> Refused:
        """The refusal of a request of so many records, of which more than are left in the bucket."""
        if records > self._capacity:
            return Refused(
                "too_many_records_at_once",
                Kind.TOO_LARGE,
                f"{records} records at once are more than a session may send in a minute, {self._capacity}.",
                f"Send smaller batches, or {_HINT}",
            )
        now = self._clock()
        self._refused_until = now + max(0.0, records - self._refill()) / self._per_second
        return self._limited(self._refused_until - now)

    @property
    def is_full(self) -> bool:
        return not self.lock.locked() and self._refill() >= self._capacity

    def _refill(self) -> float:
        """Add the units of the time that has passed; what is in the bucket now."""
        now = self._clock()
        self._left = min(self._capacity, self._left + (now - self._updated) * self._per_second)
        self._updated = now
        return self._left

    def _limited(self, seconds: float) -> Refused:
        return Refused(
            TOO_MANY_RECORDS,
            Kind.TOO_MANY,
            f"This session has sent its {self._capacity} records of the minute.",
            f"Send fewer: sample spans, raise the level of logs; or {_HINT}",
            retry_after_seconds=max(1, math.ceil(seconds)),
        )


def _cost(body_bytes: int) -> int:
    return max(1, math.ceil(body_bytes / 1024))


class RateLimits:
    """The rate limits of all sessions that send records to this replica, in memory. Not thread-safe."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._sessions: dict[UUID, RateLimit] = {}

    def of(self, session_id: UUID) -> RateLimit:
        """The session's rate limit, with a full bucket if the session is not in memory."""
        if session_id not in self._sessions:
            if len(self._sessions) >= _MAX_SESSIONS:
                self._sessions = {key: limit for key, limit in self._sessions.items() if not limit.is_full}
            self._sessions[session_id] = RateLimit(self._per_minute, self._clock)
        return self._sessions[session_id]
