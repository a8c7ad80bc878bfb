"""Bounds of sessions: their times, their number, and the memory that their rows take."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.domain.session import Session
from sandbox.errors import InvalidInput, Kind, SandboxError
from sandbox.settings import Settings


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds and defaults of a session, from the settings. A request may ask for shorter times, not for longer ones."""

    idle_timeout_seconds: int
    max_lifetime_seconds: int
    sessions_per_user: int
    #: Most memory of a container, in MiB.
    memory_max_mb: int = 4096
    default_runtime: str = "python312"

    def check_memory(self, memory_mb: int | None) -> None:
        """Raise InvalidInput if that is more than the operator allows."""
        if memory_mb is not None and memory_mb > self.memory_max_mb:
            raise InvalidInput(
                f"memory_mb: a container may have at most {self.memory_max_mb} MiB here",
                hint="Ask for less, or have the operator raise SANDBOX_MEMORY_MAX_MB.",
                code="memory_too_large",
            )

    def check_number(self, user_id: str, live: int) -> None:
        """Raise SandboxError (`too_many_sessions`) if a user with so many sessions may have no further one."""
        if live >= self.sessions_per_user:
            raise SandboxError(
                f"{user_id} has {self.sessions_per_user} sessions already",
                hint="End one that is not needed: sandbox list, sandbox kill ID.",
                code="too_many_sessions",
                kind=Kind.TOO_MANY,
            )

    @classmethod
    def of(cls, settings: Settings) -> SessionLimits:
        return cls(
            settings.idle_timeout_seconds,
            settings.max_lifetime_seconds,
            settings.max_sessions_per_user,
            max(settings.memory_mb, settings.memory_max_mb),
        )


def weight(session: Session) -> int:
    """About the memory that the session's row takes, in bytes. Only its variables can be large."""
    plans = [role.env for role in (session.plan.roles.values() if session.plan else ())]
    of_plans = sum(len(name) + len(str(value)) for env in plans for name, value in env.items())
    return 4096 + len(session.sealed or b"") + of_plans


def at_most(most: int, requested: int | None) -> int:
    """The requested time, but not more than the operator's, which is also the default. 0 means no limit."""
    if requested is None or most == 0:
        return most if requested is None else requested
    return most if requested == 0 else min(requested, most)
