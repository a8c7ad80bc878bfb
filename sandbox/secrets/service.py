"""Secrets that users keep by name, for all their projects or for one. A value can be replaced, but not read again."""

from __future__ import annotations

import re
from collections.abc import Collection

from sandbox.db.connection import Database
from sandbox.domain.caller import Caller
from sandbox.domain.variables import MAX_VALUE, SECRET_NAME, check_text
from sandbox.errors import InvalidInput, Kind, NotFound, SandboxError
from sandbox.secrets import store
from sandbox.secrets.keys import KeyRing
from sandbox.secrets.store import SHARED, Secret

MAX_SECRETS = 500
_BATCH = 100


class SecretService:
    """The secrets of all users. A caller has only its own, admins too."""

    def __init__(self, db: Database, keys: KeyRing) -> None:
        self._db = db
        self._keys = keys

    async def put(self, caller: Caller, name: str, value: str, project_id: str | None = None) -> Secret:
        """Store a value. Raises InvalidInput for an invalid name or value, SandboxError (`too_many_secrets`)."""
        _check_name(name)
        try:
            check_text(value)
        except ValueError as error:
            raise InvalidInput(f"value: it {error}.", hint="Encode it, for example in base64.") from error
        if not 1 <= len(value) <= MAX_VALUE:
            raise InvalidInput(f"value: from 1 to {MAX_VALUE:,} characters.", hint="Split it into several secrets.")
        project = project_id or SHARED
        sealed = self._keys.seal(value.encode(), _place(caller.user_id, project, name))
        async with self._db.transaction() as conn:
            number = await store.count(conn, caller.user_id)
            if number >= MAX_SECRETS and not await store.sealed(conn, caller.user_id, project, [name]):
                raise SandboxError(
                    f"{caller.user_id} has {MAX_SECRETS} secrets already.",
                    hint="Remove one that is not needed: sandbox secrets list, sandbox secrets rm NAME.",
                    code="too_many_secrets",
                    kind=Kind.TOO_MANY,
                )
            return await store.put(conn, caller.user_id, project, name, sealed)

    async def list(
        self, caller: Caller, project_id: str | None, limit: int, after: tuple[str, str] = ("", "")
    ) -> list[Secret]:
        """The caller's secrets without their values, by name."""
        async with self._db.read() as conn:
            return await store.list_page(conn, caller.user_id, project_id, limit, after)

    async def delete(self, caller: Caller, name: str, project_id: str | None = None) -> None:
        """Remove a secret. Sessions that have its value keep it until they end. Raises NotFound."""
        _check_name(name)
        async with self._db.transaction() as conn:
            found = await store.delete(conn, caller.user_id, project_id or SHARED, name)
        if not found:
            of = f" of project {project_id}" if project_id else ""
            raise NotFound(
                f"There is no secret {name}{of}.", code="secret_not_found", hint="List them: sandbox secrets list."
            )

    async def values(self, user_id: str, project_id: str | None, names: Collection[str]) -> dict[str, str]:
        """The values of those of these secrets that there are; a project's own before one for all projects."""
        if not names:
            return {}
        async with self._db.read() as conn:
            found = await store.sealed(conn, user_id, project_id or SHARED, names)
        return {
            name: self._keys.open(sealed, _place(user_id, project, name)).decode()
            for name, (project, sealed) in found.items()
        }

    async def renew_seals(self) -> int:
        """Encrypt with the current key what an earlier one has encrypted; how many secrets that were."""
        renewed = 0
        while True:
            async with self._db.transaction() as conn:
                rows = await store.outdated(conn, self._keys.current_head, _BATCH)
                for user_id, project, name, sealed in rows:
                    place = _place(user_id, project, name)
                    again = self._keys.seal(self._keys.open(sealed, place), place)
                    await store.reseal(conn, user_id, project, name, again)
            renewed += len(rows)
            if len(rows) < _BATCH:
                return renewed


def _check_name(name: str) -> None:
    if not re.fullmatch(SECRET_NAME, name):
        raise InvalidInput(
            "name: at most 100 letters, digits and . _ - are allowed, a letter or digit first.",
            hint="Choose another name.",
        )


def _place(user_id: str, project_id: str, name: str) -> str:
    return f"secret {user_id}/{project_id}/{name}"
