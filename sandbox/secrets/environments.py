"""The environments of sessions: encrypted in their rows, decrypted where commands are run."""

from __future__ import annotations

import json
from collections.abc import Set as AbstractSet
from dataclasses import replace
from uuid import UUID

from sandbox.domain.session import Session
from sandbox.domain.variables import SessionValues
from sandbox.errors import InvalidInput
from sandbox.secrets.keys import KeyRing
from sandbox.secrets.service import SecretService


class Environments:
    """Encrypts and decrypts the values of sessions' environments."""

    def __init__(self, keys: KeyRing, secrets: SecretService) -> None:
        self.keys = keys
        self.secrets = secrets

    def seal(self, session_id: UUID, values: SessionValues) -> bytes | None:
        """What the session's row holds of its values; None if there are none."""
        if not values.env and not values.values:
            return None
        return self.keys.seal(json.dumps(values.to_json()).encode(), _place(session_id))

    def opened(self, session: Session) -> Session:
        """The session with its values decrypted. Raises SealBroken."""
        if session.sealed is None:
            return session
        return replace(session, values=self.values_of(session.session_id, session.sealed), sealed=None)

    def values_of(self, session_id: UUID, sealed: bytes) -> SessionValues:
        """The values in a session's row. Raises SealBroken."""
        return SessionValues.from_json(json.loads(self.keys.open(sealed, _place(session_id))))

    def resealed(self, session_id: UUID, sealed: bytes) -> bytes:
        """The same values, encrypted with the current key."""
        return self.keys.seal(self.keys.open(sealed, _place(session_id)), _place(session_id))

    async def complete(
        self, user_id: str, project_id: str | None, values: SessionValues, names: AbstractSet[str]
    ) -> SessionValues:
        """The values with those of the named secrets as they are now. Those that were removed since stay as they are.

        Raises InvalidInput (`secret_unknown`).
        """
        found = await self.secrets.values(user_id, project_id, sorted(names))
        known = {**values.values, **found}
        if missing := sorted(names - known.keys()):
            raise InvalidInput(
                f"there is no secret {', '.join(missing)[:200]}, to which the environment refers",
                hint="Store it first: sandbox secrets set NAME.",
                code="secret_unknown",
            )
        return SessionValues(values.env, known)


def _place(session_id: UUID) -> str:
    return f"session {session_id}"
