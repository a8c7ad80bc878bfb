"""The rows of `api_tokens`. Times are timezone-aware UTC."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.exc import IntegrityError

from sandbox.db.connection import Database
from sandbox.domain.caller import CallerRole
from sandbox.errors import InvalidInput

#: A browser that is signed in, or a link that signs one in once.
SignInKind = Literal["browser", "link"]

_COLUMNS = "token_id, token_hash, user_id, role, created_at, expires_at, revoked_at"


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A stored token. The token itself is not stored, only its hash."""

    token_id: UUID
    token_hash: bytes
    user_id: str
    role: CallerRole
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def is_valid(self, now: datetime) -> bool:
        """Whether the token is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class TokenInUse(InvalidInput):
    """Another user has this token already."""

    code = "admin_token_taken"


class TokenStore:
    """Reads and writes tokens. All methods raise DatabaseUnavailable when PostgreSQL does not answer."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def insert(
        self, token_hash: bytes, user_id: str, role: CallerRole, expires_in_seconds: int | None
    ) -> TokenRecord:
        statement = text(
            "INSERT INTO api_tokens (token_hash, user_id, role, created_at, expires_at) VALUES "
            f"(:token_hash, :user_id, :role, now(), now() + make_interval(secs => :seconds)) RETURNING {_COLUMNS}"
        )
        values = {"token_hash": token_hash, "user_id": user_id, "role": role.value, "seconds": expires_in_seconds}
        async with self._db.transaction() as connection:
            return _record((await connection.execute(statement, values)).one())

    async def put(
        self, token_id: UUID, token_hash: bytes, user_id: str, role: CallerRole, *, replace: bool
    ) -> TokenRecord:
        """The row with this id, inserted if absent. With `replace`, a different hash replaces the old one and is valid.

        Raises TokenInUse if another row has that hash.
        """
        statement = text(
            "INSERT INTO api_tokens (token_id, token_hash, user_id, role, created_at) VALUES "
            "(:token_id, :token_hash, :user_id, :role, now()) ON CONFLICT (token_id) DO UPDATE SET "
            "token_hash = excluded.token_hash, revoked_at = NULL, expires_at = NULL "
            "WHERE :replace AND api_tokens.token_hash <> excluded.token_hash"
        )
        values = {"token_id": token_id, "token_hash": token_hash, "user_id": user_id, "role": role.value}
        async with self._db.transaction() as connection:
            try:
                await connection.execute(statement, values | {"replace": replace})
            except IntegrityError:
                raise TokenInUse(
                    "This token belongs to another user already.", hint="Choose another SANDBOX_ADMIN_TOKEN."
                ) from None
            by_id = text(f"SELECT {_COLUMNS} FROM api_tokens WHERE token_id = :token_id")
            return _record((await connection.execute(by_id, {"token_id": token_id})).one())

    async def by_hash(self, token_hash: bytes) -> TokenRecord | None:
        return await self._one("token_hash = :value", token_hash)

    async def by_id(self, token_id: UUID) -> TokenRecord | None:
        return await self._one("token_id = :value", token_id)

    async def by_sign_in(self, secret_hash: bytes) -> TokenRecord | None:
        """The token of a browser that is signed in; None if no browser with this secret is."""
        return await self._one(
            "token_id = (SELECT s.token_id FROM sign_ins s "
            "WHERE s.secret_hash = :value AND s.kind = 'browser' AND s.expires_at > now())",
            secret_hash,
        )

    async def add_sign_in(self, secret_hash: bytes, kind: SignInKind, token_id: UUID, seconds: int) -> datetime:
        """Store a sign-in or a link to sign in; the time of its end. Those whose time is over are deleted."""
        statement = text(
            "INSERT INTO sign_ins (secret_hash, kind, token_id, expires_at) "
            "VALUES (:hash, :kind, :token_id, now() + make_interval(secs => :seconds)) RETURNING expires_at"
        )
        values = {"hash": secret_hash, "kind": kind, "token_id": token_id, "seconds": seconds}
        async with self._db.transaction() as connection:
            await connection.execute(text("DELETE FROM sign_ins WHERE expires_at < now()"))
            end: datetime = (await connection.execute(statement, values)).scalar_one()
            return end

    async def end_sign_in(self, secret_hash: bytes, kind: SignInKind) -> UUID | None:
        """Delete a sign-in, or a link, which works once; its token. None if there is none, or its time is over."""
        statement = text(
            "DELETE FROM sign_ins WHERE secret_hash = :hash AND kind = :kind AND expires_at > now() RETURNING token_id"
        )
        async with self._db.transaction() as connection:
            return (await connection.execute(statement, {"hash": secret_hash, "kind": kind})).scalar_one_or_none()

    async def by_sign_ins(self, secret_hashes: Collection[bytes]) -> dict[bytes, TokenRecord]:
        """The tokens of browsers that are signed in, by the hashes of their secrets."""
        statement = text(
            f"SELECT s.secret_hash, {', '.join(f't.{column}' for column in _COLUMNS.split(', '))} "
            "FROM sign_ins s JOIN api_tokens t ON t.token_id = s.token_id "
            "WHERE s.secret_hash = ANY(:hashes) AND s.kind = 'browser' AND s.expires_at > now()"
        )
        async with self._db.read() as connection:
            rows = await connection.execute(statement, {"hashes": list(secret_hashes)})
            return {bytes(row.secret_hash): _record(row) for row in rows}

    async def by_ids(self, token_ids: Collection[UUID]) -> dict[UUID, TokenRecord]:
        statement = text(f"SELECT {_COLUMNS} FROM api_tokens WHERE token_id = ANY(:ids)")
        async with self._db.read() as connection:
            rows = await connection.execute(statement, {"ids": list(token_ids)})
            return {row.token_id: _record(row) for row in rows}

    async def list_newest(self, limit: int, before: tuple[datetime, UUID] | None) -> list[TokenRecord]:
        """Tokens newest first, after the cursor `before`: `created_at` and `token_id` of the last one read."""
        statement = text(
            f"SELECT {_COLUMNS} FROM api_tokens WHERE "
            "CAST(:time AS timestamp) IS NULL "
            "OR (created_at, token_id) < (CAST(:time AS timestamp), CAST(:id AS uuid)) "
            "ORDER BY created_at DESC, token_id DESC LIMIT :limit"
        )
        time, token_id = before or (None, None)
        async with self._db.read() as connection:
            rows = await connection.execute(statement, {"time": time, "id": token_id, "limit": limit})
            return [_record(row) for row in rows]

    async def valid(self, token_ids: Collection[UUID]) -> set[UUID]:
        """Those of these tokens that are neither revoked nor expired now."""
        statement = text(
            "SELECT token_id FROM api_tokens WHERE token_id = ANY(:ids) AND revoked_at IS NULL "
            "AND (expires_at IS NULL OR expires_at > now())"
        )
        async with self._db.read() as connection:
            return set((await connection.execute(statement, {"ids": list(token_ids)})).scalars())

    async def revoke(self, token_id: UUID) -> TokenRecord | None:
        """Revoke the token if it is not yet revoked; returns None if there is no such token."""
        statement = text(
            f"UPDATE api_tokens SET revoked_at = coalesce(revoked_at, now()) "
            f"WHERE token_id = :token_id RETURNING {_COLUMNS}"
        )
        async with self._db.transaction() as connection:
            row = (await connection.execute(statement, {"token_id": token_id})).one_or_none()
            return None if row is None else _record(row)

    async def _one(self, condition: str, value: bytes | UUID) -> TokenRecord | None:
        statement = text(f"SELECT {_COLUMNS} FROM api_tokens WHERE {condition}")
        async with self._db.read() as connection:
            row = (await connection.execute(statement, {"value": value})).one_or_none()
            return None if row is None else _record(row)


def _record(row: Row[Any]) -> TokenRecord:
    return TokenRecord(
        token_id=row.token_id,
        token_hash=bytes(row.token_hash),
        user_id=row.user_id,
        role=CallerRole(row.role),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
