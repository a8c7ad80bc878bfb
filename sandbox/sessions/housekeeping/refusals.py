"""Refused connections of sandboxes, as lines of their sessions' events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from uuid import UUID

from sandbox.domain.events import EventType, NewEvent
from sandbox.engine.base import Refusal

#: How often one session gets lines, and how many at once. What is refused in between is added up.
REPORT_SECONDS = 60.0
MAX_LINES = 10
_DNS_PORT = 53

#: Role, address, port and protocol.
Destination = tuple[str, str, int, str]


class RefusalReports:
    """Adds up refusals, so that a program that tries again and again does not fill its session's events.

    A session's first refusals are reported at once. What waits to be reported is in memory only.
    """

    def __init__(self) -> None:
        self._waiting: dict[UUID, Counter[Destination]] = {}
        #: When each session was last reported, in seconds of the caller's clock.
        self._reported: dict[UUID, float] = {}

    def due(self, refusals: Iterable[Refusal], now: float) -> dict[UUID, list[NewEvent]]:
        """Add refusals, and return the events that are due, by session. `now` is in seconds, of a clock of any kind."""
        for one in refusals:
            counts = self._waiting.setdefault(one.session_id, Counter())
            counts[(one.role, one.address, one.port, one.protocol)] += one.attempts
        self._reported = {each: time for each, time in self._reported.items() if now - time < REPORT_SECONDS}
        due = {each: _events(counts) for each, counts in self._waiting.items() if each not in self._reported}
        for session_id in due:
            del self._waiting[session_id]
            self._reported[session_id] = now
        return due


def _events(counts: Counter[Destination]) -> list[NewEvent]:
    """The most frequent destinations, and how many others there are."""
    shown = counts.most_common(MAX_LINES)
    events = [_event(role, _line(address, port, protocol, times)) for (role, address, port, protocol), times in shown]
    if len(counts) > len(shown):
        others = len(counts) - len(shown)
        attempts = counts.total() - sum(times for _, times in shown)
        events.append(_event("", f"network: refused {others} more destinations, {attempts} attempts"))
    return events


def _line(address: str, port: int, protocol: str, times: int) -> str:
    what = f"{protocol}, name lookups" if port == _DNS_PORT else protocol
    attempts = "1 attempt" if times == 1 else f"{times} attempts"
    return f"network: refused {address}:{port} ({what}), {attempts}; the session's egress does not permit it"


def _event(role: str, line: str) -> NewEvent:
    return NewEvent(EventType.LOG, {"stage": "egress", "role": role, "stream": "system", "line": line})
