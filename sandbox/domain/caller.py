"""The caller of an API request."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID


class CallerRole(StrEnum):
    USER = "user"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. A `user` sees what it owns; anything else is reported to it as not found."""

    user_id: str
    role: CallerRole
    token_id: str
    #: The sign-in of the browser that sends the request; None if it was sent with the token itself.
    sign_in: bytes | None = field(default=None, repr=False, compare=False)

    @property
    def signed_in_by(self) -> SignedInBy:
        """What the visits of previews end with that begin with a link of this caller."""
        return SignedInBy(self.user_id, UUID(self.token_id), self.sign_in)

    @property
    def is_admin(self) -> bool:
        return self.role is CallerRole.ADMIN

    def may_see(self, owner: str) -> bool:
        """Whether the caller may see what belongs to the user `owner`."""
        return self.is_admin or self.user_id == owner


@dataclass(frozen=True, slots=True)
class SignedInBy:
    """What a visitor of a preview has signed in with; the visit ends with it."""

    user_id: str
    #: None if it is not known.
    token_id: UUID | None = None
    #: The hash of a browser's sign-in, if the link was made for a browser.
    sign_in: bytes | None = field(default=None, repr=False)
