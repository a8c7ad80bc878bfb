"""How many launches a replica runs at once, shared among users.

A launch holds a slot while it uses this service and the engine. While its dependencies are installed it mostly waits
for package indexes, so its slot is free for other launches then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from uuid import UUID

from sandbox.domain.stages import StageName
from sandbox.launch.stage import Stage, StageContext, StageResult

#: Launches at once, installing ones included, for each slot.
_LAUNCHES_PER_SLOT = 4


class LaunchSlots:
    """The slots of one replica. Used from one event loop."""

    def __init__(self, slots: int, per_user: int) -> None:
        """`per_user` launches of one user run at once at most, installing ones included."""
        self._slots = slots
        self.per_user = per_user
        self._released: set[UUID] = set()
        #: Called when a slot becomes free while its launch goes on.
        self.on_release: Callable[[], None] = lambda: None

    def free(self, launches: Collection[UUID]) -> int:
        """How many launches may begin beside those of these sessions."""
        holding = len(launches) - len(self._released.intersection(launches))
        return max(0, min(self._slots - holding, self._slots * _LAUNCHES_PER_SLOT - len(launches)))

    @contextmanager
    def released(self, session_id: UUID) -> Iterator[None]:
        """Hold no slot for the session's launch within the block."""
        self._released.add(session_id)
        self.on_release()
        try:
            yield
        finally:
            self._released.discard(session_id)


class WithoutSlot:
    """A stage during which the launch holds no slot."""

    def __init__(self, stage: Stage, slots: LaunchSlots) -> None:
        self.name: StageName = stage.name
        self._stage = stage
        self._slots = slots

    async def run(self, context: StageContext) -> StageResult:
        with self._slots.released(context.session.session_id):
            return await self._stage.run(context)
