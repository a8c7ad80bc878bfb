"""The protocols through which the preview proxy finds a session's app and authorises requests for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from sandbox.domain.session import SessionError, SessionStatus
from sandbox.engine.guest import Guest


@dataclass(frozen=True, slots=True)
class PreviewTarget:
    """A session as a preview sees it, true when it was resolved."""

    session_id: UUID
    user_id: str
    status: SessionStatus
    #: The port shown when the host names none; None if the plan has none, or is not made yet.
    preview_port: int | None
    #: The roles that have a container, in the order of the plan.
    roles: tuple[str, ...]
    #: Which role the plan gives each port to.
    port_roles: dict[int, str] = field(default_factory=dict)
    pipeline_stage: str | None = None
    error: SessionError | None = None

    def candidates(self, port: int) -> tuple[str, ...]:
        """The roles in which to look for a port: the one the plan names, else all, the previewed one first."""
        if port in self.port_roles:
            return (self.port_roles[port],)
        shown = self.port_roles.get(self.preview_port) if self.preview_port is not None else None
        return tuple(sorted(self.roles, key=lambda role: role != shown))


class PreviewResolver(Protocol):
    """Finds sessions. It never starts, recovers or changes one."""

    async def resolve(self, session_id: UUID) -> PreviewTarget | None:
        """The session, over or not; None if there never was one. Asked about once a second for a session in use."""

    def guest(self, session_id: UUID, role: str) -> Guest:
        """The guest agent of the role's container. No I/O, and its life is the resolver's affair: it is never closed
        here."""

    async def touch(self, session_id: UUID) -> None:
        """Record that the session is in use. Called at most every few seconds for one session."""


class PreviewSigner(Protocol):
    """Signs and reads what a browser carries. Reading raises a SandboxError of kind UNAUTHENTICATED for a value that
    is forged, expired or another session's."""

    def read_preview(self, value: str, session_id: UUID) -> str:
        """The user a link to this session's preview was made for."""

    def sign_preview_cookie(self, session_id: UUID, user_id: str) -> str:
        """A value for the cookie of one preview host: letters, digits, `-`, `_`, `.` and the like, nothing to quote."""

    def read_preview_cookie(self, value: str, session_id: UUID) -> str:
        """The user whose browser this session's preview cookie was given to."""


class PreviewAuthenticator(Protocol):
    """Knows the callers of the API by their tokens."""

    async def may_view(self, headers: Mapping[str, str], target: PreviewTarget) -> bool:
        """Whether the caller that `authorization` or `x-api-key` names may see the session. Names are in lower case."""
