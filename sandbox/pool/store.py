"""SQL of `pool_containers`: what waits in the pool, and which sessions got something from it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

#: NOTIFY channel for claims, so that what was taken is replaced; without payload.
CHANNEL = "pool_claims"

_ADD = text("INSERT INTO pool_containers (member_id, runtime, fingerprint) VALUES (:member, :runtime, :fingerprint)")
_READY = text("UPDATE pool_containers SET state = 'ready' WHERE member_id = :member AND state = 'making'")
_NOT_CLAIMED = text("""
    SELECT member_id, runtime, fingerprint, state FROM pool_containers WHERE state <> 'claimed' ORDER BY created_at
""")
#: The subquery refers to nothing outside of it, so it is evaluated once and one row at most is locked.
_CLAIM = text("""
    UPDATE pool_containers SET state = 'claimed', session_id = :session_id, role = :role
     WHERE member_id = (SELECT member_id FROM pool_containers WHERE state = 'ready' AND fingerprint = :fingerprint
                         ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING member_id
""")
_NOTIFY = text("SELECT pg_notify(:channel, '')")
_OF_SESSION = text("SELECT role, member_id FROM pool_containers WHERE session_id = :session_id")
_OWNERS = text("SELECT member_id, session_id, role FROM pool_containers")
_RETIRE = text("""
    UPDATE pool_containers SET state = 'removing' WHERE member_id = ANY(:members) AND state <> 'claimed'
    RETURNING member_id
""")
_GONE = text("DELETE FROM pool_containers WHERE member_id = :member AND state = 'removing'")
_FORGET = text("DELETE FROM pool_containers WHERE session_id = :session_id")
#: The containers that were needed in the busiest minute of the last ones, by runtime.
_DEMAND = text("""
    SELECT runtime, max(needed) AS needed FROM (
        SELECT role.value->>'runtime' AS runtime, count(*) AS needed
          FROM sandbox_sessions, jsonb_each(plan->'roles') AS role
         WHERE created_at > NOW() - make_interval(mins => :minutes)
         GROUP BY role.value->>'runtime', date_trunc('minute', created_at)) AS minutes
     GROUP BY runtime
""")


class MemberState(StrEnum):
    """The state of a container that no session has."""

    MAKING = "making"
    READY = "ready"
    REMOVING = "removing"


@dataclass(frozen=True, slots=True)
class Member:
    """A container of the pool that no session has."""

    member_id: UUID
    runtime: str
    fingerprint: str
    state: MemberState


async def add(conn: AsyncConnection, member: Member) -> None:
    """Record a container that is about to be made."""
    values = {"member": member.member_id, "runtime": member.runtime, "fingerprint": member.fingerprint}
    await conn.execute(_ADD, values)


async def mark_ready(conn: AsyncConnection, member: UUID) -> bool:
    """Let sessions have the container; False if it is to be removed, because another replica keeps the pool now."""
    return bool((await conn.execute(_READY, {"member": member})).rowcount)


async def members(conn: AsyncConnection) -> list[Member]:
    """What no session has, oldest first."""
    rows = (await conn.execute(_NOT_CLAIMED)).all()
    return [Member(row.member_id, row.runtime, row.fingerprint, MemberState(row.state)) for row in rows]


async def claim(conn: AsyncConnection, session_id: UUID, role: str, fingerprint: str) -> UUID | None:
    """Give the role a container that waits, in the caller's transaction; its id, or None if there is none.

    Claims of other transactions at the same time get other containers.
    """
    values = {"session_id": session_id, "role": role, "fingerprint": fingerprint}
    member = (await conn.execute(_CLAIM, values)).scalar_one_or_none()
    await conn.execute(_NOTIFY, {"channel": CHANNEL})
    return member


async def of_session(conn: AsyncConnection, session_id: UUID) -> dict[str, UUID]:
    """The containers that the session got from the pool, by role."""
    return {row.role: row.member_id for row in (await conn.execute(_OF_SESSION, {"session_id": session_id})).all()}


async def forget(conn: AsyncConnection, session_id: UUID) -> None:
    """Delete the rows of a session whose containers and volumes have been removed."""
    await conn.execute(_FORGET, {"session_id": session_id})


async def owners(conn: AsyncConnection) -> dict[UUID, tuple[UUID, str] | None]:
    """Session and role of each container that came from the pool; None for one that no session has."""
    rows = (await conn.execute(_OWNERS)).all()
    return {row.member_id: (row.session_id, row.role) if row.session_id else None for row in rows}


async def retire(conn: AsyncConnection, members: Collection[UUID]) -> list[UUID]:
    """Let no session have these containers any more; those of them that none has."""
    return list((await conn.execute(_RETIRE, {"members": list(members)})).scalars())


async def delete(conn: AsyncConnection, member: UUID) -> None:
    """Delete the row of a container that was retired and has been removed."""
    await conn.execute(_GONE, {"member": member})


async def demand(conn: AsyncConnection, minutes: int) -> dict[str, int]:
    """How many containers of each runtime were needed in the busiest of the last minutes."""
    return {row.runtime: row.needed for row in (await conn.execute(_DEMAND, {"minutes": minutes})).all()}
