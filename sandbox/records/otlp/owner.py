"""The owner of records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Owner:
    """The user whose records these are, whatever they claim themselves; and the session, if an app of one sent them."""

    user_id: str
    session_id: str | None = None
