"""When refinement runs take place by themselves."""

from __future__ import annotations

from sandbox.db.connection import Database
from sandbox.db.periodic import Periodic
from sandbox.learning.refinement.service import Refiner

#: How often the service looks for failures that have repeated.
REWORK_SECONDS = 30.0


class RefinementSchedule:
    """Starts the periodic runs. Every replica has them; each takes place in one replica at a time."""

    def __init__(self, db: Database, refiner: Refiner, interval_seconds: float) -> None:
        """`interval_seconds` 0: no periodic runs."""
        self._periodic = []
        if interval_seconds:
            self._periodic = [
                Periodic(db, "refinement", interval_seconds, lambda: refiner.run("scheduled")),
                Periodic(db, "rework", REWORK_SECONDS, refiner.rework_repeated),
            ]

    async def start(self) -> None:
        for periodic in self._periodic:
            periodic.start()

    async def close(self) -> None:
        for periodic in reversed(self._periodic):
            await periodic.close()
