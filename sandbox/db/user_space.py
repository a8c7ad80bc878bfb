"""How many bytes each user may store of one kind, such as project archives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.errors import Kind, SandboxError

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('space ' || :kind || ' ' || :user_id, 0))")


async def require_space(
    conn: AsyncConnection, kind: str, used: TextClause, values: Mapping[str, Any], *, added: int, limit: int
) -> None:
    """Return if the user may store `added` bytes more. The user is locked until the end of the transaction, so that
    uploads at the same time are counted.

    Args:
        kind: What is stored, as a plural for the message.
        used: A query of the bytes that stay stored, with the parameters `values`, among them `user_id`.
        limit: The most bytes; 0 means no limit.

    Raises SandboxError `storage_limit`.
    """
    if not limit:
        return
    await conn.execute(_LOCK, {"kind": kind, "user_id": values["user_id"]})
    stored = int((await conn.execute(used, dict(values))).scalar_one())
    if stored + added > limit:
        raise SandboxError(
            f"{kind} of {values['user_id']} take {stored} bytes; with {added} more they would exceed the {limit} that "
            f"a user may store",
            hint=f"Delete {kind} that are not needed, or ask the operator for more.",
            code="storage_limit",
            kind=Kind.TOO_LARGE,
        )
