"""The identity of this deployment: a single row that the migrations created."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from sandbox.db.connection import Database


@dataclass(frozen=True, slots=True)
class Deployment:
    """What all replicas of a deployment have in common. Does not change across restarts."""

    deployment_id: UUID


async def load_deployment(db: Database) -> Deployment:
    """Read the row. The migrations must have been applied. Raises DatabaseUnavailable."""
    async with db.transaction() as connection:
        row = (await connection.execute(text("SELECT deployment_id FROM deployment"))).one()
    return Deployment(row.deployment_id)
