"""Whose records are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Owner:
    """The user whose records are, whatever these say; and the session they come from, if they come from one."""

    user_id: str
    session_id: str | None = None
