"""Whether a container ended for lack of memory, or had run out of it at some time before.

The engine says of a container only that a process in it was killed for using too much memory at some time. That may
have been a command, hours before the container was killed from outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from cachetools import TTLCache

from sandbox.engine.base import ContainerState, EngineEvent

#: How long reports are kept, and of how many containers.
KEEP_SECONDS = 600.0
MOST_CONTAINERS = 10_000
#: How far apart the reports of the lack of memory and of the end are at most, if one is the cause of the other.
CAUSE_SECONDS = 10.0


class MemoryReports:
    """The engine's events of containers that ran out of memory, and of those that ended."""

    def __init__(self) -> None:
        self._seen: TTLCache[tuple[str, str], datetime] = TTLCache(2 * MOST_CONTAINERS, KEEP_SECONDS)

    def note(self, event: EngineEvent) -> None:
        if event.action in ("oom", "die"):
            self._seen[event.action, event.container_id] = event.time

    def corrected(self, states: Mapping[str, ContainerState | None]) -> dict[str, ContainerState | None]:
        """The states, with `out_of_memory` only for containers that were seen to end for that reason."""
        return {
            role: state if state is None or self._is_cause(state) else replace(state, out_of_memory=False)
            for role, state in states.items()
        }

    def _is_cause(self, state: ContainerState) -> bool:
        without_memory, ended = self._seen.get(("oom", state.id)), self._seen.get(("die", state.id))
        if without_memory is None or ended is None:
            return False
        return abs((ended - without_memory).total_seconds()) <= CAUSE_SECONDS
