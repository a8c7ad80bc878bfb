"""SQL of `secrets`. Values are stored encrypted only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.driver import to_utc

#: The project of secrets that all projects of a user share.
SHARED = ""

_LOCK = text("SELECT pg_advisory_xact_lock(8743, hashtext(:user_id))")
_PUT = text("""
    INSERT INTO secrets (user_id, project_id, name, sealed) VALUES (:user_id, :project_id, :name, :sealed)
    ON CONFLICT (user_id, project_id, name) DO UPDATE SET sealed = excluded.sealed, updated_at = NOW()
    RETURNING name, project_id, created_at, updated_at
""")
_COUNT = text("SELECT count(*) FROM secrets WHERE user_id = :user_id")
_LIST = text("""
    SELECT name, project_id, created_at, updated_at FROM secrets
     WHERE user_id = :user_id AND project_id = coalesce(:project_id, project_id)
       AND (name, project_id) > (:after_name, :after_project)
     ORDER BY name, project_id LIMIT :limit
""")
_DELETE = text("DELETE FROM secrets WHERE user_id = :user_id AND project_id = :project_id AND name = :name")
#: Of a name, the project's own secret comes before the shared one.
_SEALED = text("""
    SELECT DISTINCT ON (name) name, project_id, sealed FROM secrets
     WHERE user_id = :user_id AND project_id IN (:project_id, '') AND name = ANY(:names)
     ORDER BY name, project_id DESC
""")
_OUTDATED = text("""
    SELECT user_id, project_id, name, sealed FROM secrets
     WHERE substring(sealed FROM 1 FOR :length) <> :head LIMIT :limit FOR UPDATE SKIP LOCKED
""")
_RESEAL = text("""
    UPDATE secrets SET sealed = :sealed WHERE user_id = :user_id AND project_id = :project_id AND name = :name
""")


@dataclass(frozen=True, slots=True)
class Secret:
    """A stored secret without its value."""

    name: str
    #: None if it is for all projects of its user.
    project_id: str | None
    created_at: datetime
    updated_at: datetime


async def put(conn: AsyncConnection, user_id: str, project_id: str, name: str, sealed: bytes) -> Secret:
    values = {"user_id": user_id, "project_id": project_id, "name": name, "sealed": sealed}
    row = (await conn.execute(_PUT, values)).one()
    return Secret(row.name, row.project_id or None, to_utc(row.created_at), to_utc(row.updated_at))


async def count(conn: AsyncConnection, user_id: str) -> int:
    """How many secrets the user has. Until the transaction ends no other one counts them."""
    await conn.execute(_LOCK, {"user_id": user_id})
    return int((await conn.execute(_COUNT, {"user_id": user_id})).scalar_one())


async def list_page(
    conn: AsyncConnection, user_id: str, project_id: str | None, limit: int, after: tuple[str, str]
) -> list[Secret]:
    """Secrets by name, after the name and project of the last one read. `project_id` None: of all projects."""
    values = {"user_id": user_id, "project_id": project_id, "limit": limit}
    values |= {"after_name": after[0], "after_project": after[1]}
    rows = await conn.execute(_LIST, values)
    return [Secret(row.name, row.project_id or None, to_utc(row.created_at), to_utc(row.updated_at)) for row in rows]


async def delete(conn: AsyncConnection, user_id: str, project_id: str, name: str) -> bool:
    """Delete a secret; False if there is none."""
    values = {"user_id": user_id, "project_id": project_id, "name": name}
    return (await conn.execute(_DELETE, values)).rowcount == 1


async def sealed(
    conn: AsyncConnection, user_id: str, project_id: str, names: Collection[str]
) -> dict[str, tuple[str, bytes]]:
    """Of each of these names that there is, the project that the secret belongs to and its encrypted value."""
    values = {"user_id": user_id, "project_id": project_id, "names": list(names)}
    rows = await conn.execute(_SEALED, values)
    return {row.name: (row.project_id, bytes(row.sealed)) for row in rows}


async def outdated(conn: AsyncConnection, head: bytes, limit: int) -> list[tuple[str, str, str, bytes]]:
    """User, project, name and encrypted value of secrets that another key than the current one has encrypted."""
    rows = await conn.execute(_OUTDATED, {"head": head, "length": len(head), "limit": limit})
    return [(row.user_id, row.project_id, row.name, bytes(row.sealed)) for row in rows]


async def reseal(conn: AsyncConnection, user_id: str, project_id: str, name: str, value: bytes) -> None:
    values = {"user_id": user_id, "project_id": project_id, "name": name, "sealed": value}
    await conn.execute(_RESEAL, values)
