"""What callers can do with the memory.

A namespace belongs to the user that wrote to it first; an agent is a user, with a token of its own. The owner decides
what others may do with it: nothing, read, or write. A namespace without an owner belongs to the admins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database
from sandbox.db.tables import Row
from sandbox.db.user_space import require_space
from sandbox.domain.caller import Caller
from sandbox.errors import Conflict, Kind, NotFound, SandboxError
from sandbox.knowledge.memory import store

Access = Literal["none", "read", "write"]


class MemoryForbidden(SandboxError):
    """The caller may not write to the namespace."""

    code = "memory_forbidden"
    kind = Kind.FORBIDDEN


def missing(namespace: str, key: str) -> NotFound:
    """The error for an entry that does not exist or that the caller may not see."""
    return NotFound(f"There is no memory entry {namespace}/{key}.", code="memory_not_found")


class MemoryService:
    """Reads and writes entries on behalf of a caller."""

    def __init__(self, db: Database, *, bytes_per_user: int = 0) -> None:
        """`bytes_per_user` is the most that the namespaces of one user may hold; 0 means no limit."""
        self._db = db
        self._bytes_per_user = bytes_per_user

    async def check_readable(self, caller: Caller, namespace: str) -> bool:
        """Whether the caller may read the namespace."""
        if caller.is_admin:
            return True
        async with self._db.read() as conn:
            known = await store.namespace(conn, namespace)
        return known is not None and (known["owner"] == caller.user_id or known["access"] != "none")

    async def read(self, caller: Caller, namespace: str, key: str) -> Row:
        """One entry. Raises NotFound."""
        row = await store.read(self._db, namespace, key) if await self.check_readable(caller, namespace) else None
        if row is None:
            raise missing(namespace, key)
        return row

    async def write(
        self, caller: Caller, namespace: str, key: str, values: Mapping[str, Any], expected: int | None, kind: Kind
    ) -> Row:
        """Write an entry: `values` has value, agent_name and ttl_seconds.

        With `expected`, only if the entry has that version (0: it does not exist); otherwise raises an error of this
        kind (`memory_version_conflict`). Raises MemoryForbidden, and `storage_limit` if the
        namespaces of this one's owner would hold too much.
        """
        bound = {**values, "namespace": namespace, "key": key, "written_by": caller.user_id}
        async with self._db.transaction() as conn:
            await self._check_writable(conn, caller, namespace)
            # If the entry does not exist, the statement would insert it without comparing versions.
            if expected and await store.locked_version(conn, namespace, key) == 0:
                raise _other_version(namespace, key, expected, kind)
            if not caller.is_admin:
                await self._require_space(conn, namespace, values["value"])
            row = await store.write(conn, bound, expected)
            if row is None:
                raise _other_version(namespace, key, expected, kind)
            return row

    async def remove(self, caller: Caller, namespace: str, key: str, expected: int | None) -> None:
        """Remove an entry, with `expected` only if it has that version.

        Raises NotFound, MemoryForbidden, and `memory_version_conflict`.
        """
        if not await self.check_readable(caller, namespace):
            raise missing(namespace, key)
        async with self._db.transaction() as conn:
            await self._check_writable(conn, caller, namespace)
            version = await store.locked_version(conn, namespace, key)
            if version == 0:
                raise missing(namespace, key)
            if expected is not None and version != expected:
                raise _other_version(namespace, key, expected, Kind.PRECONDITION)
            await store.remove(conn, namespace, key)

    async def share(self, caller: Caller, namespace: str, access: Access, owner: str | None) -> Row:
        """Set what others may do with a namespace; an admin may also set its owner.

        A namespace that does not exist yet becomes the caller's. Raises MemoryForbidden.
        """
        async with self._db.transaction() as conn:
            if not caller.is_admin:
                await store.claim(conn, namespace, caller.user_id)
            known = await store.namespace(conn, namespace)
            if not caller.is_admin and (known is None or known["owner"] != caller.user_id or owner is not None):
                raise MemoryForbidden(
                    f"The namespace {namespace} is not yours.", hint="Its owner or an admin decides who may use it."
                )
            new_owner = owner or (known["owner"] if known else caller.user_id)
            return await store.share(conn, namespace, new_owner, access)

    async def _require_space(self, conn: AsyncConnection, namespace: str, value: Any) -> None:
        """Raise `storage_limit` if the namespace's owner has no space for the value and its copy in the history."""
        known = await store.namespace(conn, namespace)
        if known is not None:
            size, owner = 2 * len(json.dumps(value)), {"user_id": known["owner"]}
            await require_space(conn, "memory", store.SPACE_OF_USER, owner, added=size, limit=self._bytes_per_user)

    async def _check_writable(self, conn: AsyncConnection, caller: Caller, namespace: str) -> None:
        """Raise MemoryForbidden unless the caller may write. A namespace that does not exist becomes the caller's."""
        if caller.is_admin:
            return
        await store.claim(conn, namespace, caller.user_id)
        known = await store.namespace(conn, namespace)
        if known is None or (known["owner"] != caller.user_id and known["access"] != "write"):
            raise MemoryForbidden(
                f"You may not write to the namespace {namespace}.",
                hint="Use a namespace of your own, or ask its owner.",
            )


def _other_version(namespace: str, key: str, expected: int | None, kind: Kind) -> SandboxError:
    return Conflict(
        f"{namespace}/{key} is no longer at version {expected}.",
        code="memory_version_conflict",
        hint="Read it again, then decide.",
        kind=kind,
    )
