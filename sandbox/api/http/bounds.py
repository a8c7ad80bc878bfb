"""Bounds on what is under way at once: requests, streams, terminals, and bytes of request bodies.

A bound holds for each key, which is a user or an address, and for all keys together. What exceeds it is refused at
once instead of waiting in a queue: a queue would let one caller delay all others.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from sandbox.errors import Kind, SandboxError


class TooManyAtOnce(SandboxError):
    """The caller has as much under way as one caller may have."""

    code = "too_many_requests"
    kind = Kind.TOO_MANY


class ServiceBusy(SandboxError):
    """All callers together have as much under way as the service takes."""

    code = "service_busy"
    kind = Kind.UNAVAILABLE


@dataclass(slots=True)
class Bound:
    """How much of one thing is under way. Not thread-safe."""

    #: The thing in the plural, for messages, such as `terminals`.
    what: str
    per_key: int
    total: int
    _taken: Counter[str] = field(default_factory=Counter)
    _sum: int = 0

    def take(self, key: str | None, amount: int = 1) -> None:
        """Count `amount` more for the key; without a key only the total is bounded.

        Raises TooManyAtOnce and ServiceBusy; then nothing is counted.
        """
        if key is not None and self._taken[key] + amount > self.per_key:
            raise TooManyAtOnce(
                f"More than {self.per_key:,} {self.what} of one caller at once are not accepted.",
                hint="Wait for some of them to end, then send this again.",
            )
        if self._sum + amount > self.total:
            raise ServiceBusy(
                f"The service has as many {self.what} under way as it takes.",
                hint="Send the same again after Retry-After seconds.",
            )
        if key is not None:
            self._taken[key] += amount
        self._sum += amount

    def give_back(self, key: str | None, amount: int = 1) -> None:
        """Undo a `take` of the same key and amount."""
        self._sum -= amount
        if key is not None:
            self._taken[key] -= amount
            if not self._taken[key]:
                del self._taken[key]


class Taken:
    """What one request has taken from several bounds, to be given back together. A context manager."""

    def __init__(self, key: str | None) -> None:
        """All is taken for this key."""
        self._key = key
        self._parts: list[tuple[Bound, int]] = []

    def take(self, bound: Bound, amount: int = 1) -> None:
        """See `Bound.take`."""
        bound.take(self._key, amount)
        self._parts.append((bound, amount))

    def __enter__(self) -> Taken:
        return self

    def __exit__(self, *_: object) -> None:
        while self._parts:
            bound, amount = self._parts.pop()
            bound.give_back(self._key, amount)
