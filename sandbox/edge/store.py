"""The rows of `preview_grants`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from sandbox.db.connection import Database
from sandbox.domain.caller import SignedInBy
from sandbox.preview.target import Grant

#: Whether what a visitor has signed in with is good: the token, and the browser's sign-in if there is one.
_SIGNED_IN = """
    ({credential} IS NULL OR EXISTS (SELECT 1 FROM api_tokens t WHERE t.token_id = {credential}
        AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())))
    AND ({sign_in} IS NULL OR EXISTS (SELECT 1 FROM sign_ins i WHERE i.secret_hash = {sign_in}
        AND i.kind = 'browser' AND i.expires_at > now()))
"""
#: A grant is good while its time is not over, its session is not, and what it was made with is good.
_GOOD = f"""
    g.expires_at > now() AND s.status <> 'terminated'
    AND {_SIGNED_IN.format(credential="g.token_id", sign_in="g.sign_in")}
"""
_FROM = """
    FROM preview_grants g
    JOIN sandbox_sessions s ON s.session_id = g.session_id
"""


@dataclass(frozen=True, slots=True)
class GrantState:
    """A grant as the database has it now. `roles` are those of the session's containers."""

    grant: Grant
    good: bool
    roles: tuple[str, ...]


class GrantStore:
    """Reads and writes grants. Raises DatabaseUnavailable when PostgreSQL does not answer."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def insert(self, grant: Grant, lifetime_seconds: int) -> bool:
        """Store a new grant; False, and nothing is stored, if what it is made with is not good."""
        good = _SIGNED_IN.format(credential="CAST(:token_id AS uuid)", sign_in="CAST(:sign_in AS bytea)")
        statement = text(
            "INSERT INTO preview_grants (key, session_id, user_id, token_id, sign_in, address, expires_at) "
            "SELECT :key, :session_id, :user_id, CAST(:token_id AS uuid), CAST(:sign_in AS bytea), "
            f"CAST(:address AS text), now() + make_interval(secs => :seconds) WHERE {good}"
        )
        values = {
            "key": grant.key,
            "session_id": grant.session_id,
            "user_id": grant.by.user_id,
            "token_id": grant.by.token_id,
            "sign_in": grant.by.sign_in,
            "address": grant.address,
            "seconds": lifetime_seconds,
        }
        async with self._db.transaction() as connection:
            return (await connection.execute(statement, values)).rowcount == 1

    async def find(self, key: str, session_id: UUID) -> Grant | None:
        """The session's grant with this key, if its time is not over and its token is good. The session may be over."""
        good = _GOOD.replace("AND s.status <> 'terminated'", "")
        statement = text(f"SELECT g.* {_FROM} WHERE g.key = :key AND g.session_id = :session_id AND {good}")
        async with self._db.read() as connection:
            row = (await connection.execute(statement, {"key": key, "session_id": session_id})).one_or_none()
        return None if row is None else _grant(row)

    async def find_by_address(self, session_id: UUID, address: str) -> Grant | None:
        """The newest good grant of the session for a browser at this IP address."""
        statement = text(
            f"SELECT g.* {_FROM} WHERE g.session_id = :session_id AND g.address = :address AND {_GOOD} "
            "ORDER BY g.created_at DESC LIMIT 1"
        )
        async with self._db.read() as connection:
            row = (await connection.execute(statement, {"session_id": session_id, "address": address})).one_or_none()
        return None if row is None else _grant(row)

    async def states(self, keys: Collection[str]) -> dict[str, GrantState]:
        """Those of these grants that the database has, by key."""
        statement = text(f"SELECT g.*, s.containers, ({_GOOD}) AS good {_FROM} WHERE g.key = ANY(:keys)")
        async with self._db.read() as connection:
            rows = (await connection.execute(statement, {"keys": list(keys)})).all()
        return {row.key: GrantState(_grant(row), row.good, tuple(row.containers)) for row in rows}

    async def logged_sessions(self, sessions: Collection[UUID]) -> set[UUID]:
        """Those of these sessions whose plan asks for their preview's requests to be logged."""
        statement = text(
            "SELECT session_id FROM sandbox_sessions "
            "WHERE session_id = ANY(:sessions) AND plan -> 'preview' ->> 'log' = 'true'"
        )
        async with self._db.read() as connection:
            return set((await connection.execute(statement, {"sessions": list(sessions)})).scalars())

    async def drop_expired(self) -> None:
        """Delete rows that have been of no use for a day. Until then they tell which sockets to close."""
        async with self._db.transaction() as connection:
            await connection.execute(text("DELETE FROM preview_grants WHERE expires_at < now() - interval '1 day'"))


def _grant(row: Row[Any]) -> Grant:
    by = SignedInBy(row.user_id, row.token_id, None if row.sign_in is None else bytes(row.sign_in))
    return Grant(row.key, row.session_id, by, row.address)
