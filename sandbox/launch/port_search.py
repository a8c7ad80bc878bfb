"""Finds the port on which an app answers.

A port that the project states is the port. A port that was detected is a guess: the app may open another one, or
several. Then the one that answers a browser best is taken.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from sandbox.domain.plan import RolePlan
from sandbox.engine.guest import Guest
from sandbox.launch.answers import ANSWERS, PAGE, rank
from sandbox.launch.http_probe import HEAD_SECONDS, Answer, ask
from sandbox.launch.output import plain

#: How long another port than the planned one must have been open before it is taken, since the planned one may follow:
#: a port with a page whose address the app has printed, one with a page or a printed address, and any other.
PRINTED_SECONDS = 0.5
PAGE_SECONDS = 3.0
OTHER_SECONDS = 8.0
#: Longest wait for the head of one answer.
LONGEST_PATIENCE = 20.0
#: Ports that are asked at most; an app that opens more has one of the first.
_MAX_PORTS = 8
_ADDRESS = re.compile(
    r"https?://(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-fA-F:]{2,39}\]|[0-9a-z-]{1,63}):(?P<port>\d{2,5})"
    r"(?P<path>/[^\s'\"`<>)\]]*)?"
)


@dataclass(frozen=True, slots=True)
class Found:
    """A port on which something listens, and how it answers."""

    port: int
    answer: Answer


def printed_addresses(lines: Iterable[str]) -> list[tuple[int, str]]:
    """The ports and paths of the app's own addresses in its output, in order. A path is "/" if there is none."""
    found: dict[tuple[int, str], None] = {}
    for line in lines:
        for match in _ADDRESS.finditer(plain(line)):
            path = (match["path"] or "/").rstrip(".,;")
            found[int(match["port"]), path] = None
    return list(found)


class PortSearch:
    """The search for one role's port. Call `look` repeatedly. Not thread-safe."""

    def __init__(self, plan: RolePlan) -> None:
        self._plan = plan
        self._stated = "port" in plan.stated
        #: How long the planned port has for an answer. It grows, since a server may compile its first page.
        self._patience = HEAD_SECONDS
        self._open_since: dict[int, float] = {}
        #: The ports that were open at the last look, the planned one among them.
        self.open_ports: list[int] = []
        #: What the planned port answered last; None while nothing listens there.
        self.planned: Answer | None = None

    async def look(self, guest: Guest, lines: Iterable[str]) -> Found | None:
        """The port to use, with its answer, which may be a bad one; None if it is too early to tell.

        `lines` are the last of the app's output. Raises GuestError if the guest agent does not answer.
        """
        planned = self._plan.port
        if planned is not None:
            self.planned = await ask(guest, planned, self._plan.health, self._patience)
            if self.planned is not None and self.planned.is_silent:
                self._patience = min(self._patience * 2, LONGEST_PATIENCE)
            own = Found(planned, self.planned) if self.planned is not None else None
            if self._stated or (self.planned is not None and rank(self.planned) >= PAGE):
                return own
        else:
            own = None
        best, may_follow = await self._best_of_others(guest, {port for port, _ in printed_addresses(lines)})
        # Of equals the planned port is taken.
        chosen = max(filter(None, (own, best)), key=lambda found: rank(found.answer), default=None)
        return chosen if chosen is not None and rank(chosen.answer) >= may_follow else None

    async def _best_of_others(self, guest: Guest, printed: set[int]) -> tuple[Found | None, int]:
        """The best of the other ports that have been open for long enough, and the best rank that one of the others may
        turn out to have."""
        self.open_ports = await guest.listening_ports()
        others = [port for port in self.open_ports if port != self._plan.port][:_MAX_PORTS]
        now = time.monotonic()
        self._open_since = {port: self._open_since.get(port, now) for port in others}
        ripe = [port for port in others if now - self._open_since[port] >= PRINTED_SECONDS]
        may_follow = 0 if len(ripe) == len(others) else PAGE + 1
        found = []
        answers = await asyncio.gather(*(ask(guest, port, self._plan.health) for port in ripe))
        for port, answer in zip(ripe, answers, strict=True):
            if answer is None or rank(answer) < ANSWERS:
                continue
            signs = (rank(answer) > PAGE) + (port in printed and rank(answer) >= PAGE)
            if now - self._open_since[port] >= (OTHER_SECONDS, PAGE_SECONDS, PRINTED_SECONDS)[signs]:
                found.append(Found(port, answer))
            else:
                may_follow = max(may_follow, rank(answer))
        best = max(found, key=lambda each: (rank(each.answer), each.port in printed, -each.port), default=None)
        return best, may_follow
