"""Who is calling."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CallerRole(StrEnum):
    USER = "user"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. A `user` sees what it owns; everything else does not exist for it."""

    user_id: str
    role: CallerRole
    token_id: str

    @property
    def is_admin(self) -> bool:
        return self.role is CallerRole.ADMIN

    def may_see(self, owner: str) -> bool:
        return self.is_admin or self.user_id == owner
