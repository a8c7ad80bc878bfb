"""Who this deployment is: the one row that the migrations made."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import text

from sandbox.db.connection import Database


@dataclass(frozen=True, slots=True)
class Deployment:
    """The same for every replica, across restarts."""

    deployment_id: UUID
    #: Signs cookies and preview links. Never shown, not in a repr either.
    signing_key: str = field(repr=False)


async def load_deployment(db: Database) -> Deployment:
    """Read it. The migrations must have been applied. Raises DatabaseUnavailable."""
    async with db.transaction() as connection:
        row = (await connection.execute(text("SELECT deployment_id, signing_key FROM deployment"))).one()
    return Deployment(row.deployment_id, row.signing_key)
