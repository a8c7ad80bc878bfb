"""What previews need from other packages: where a session's app is, who may see it, and the visitors' grants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from sandbox.domain.caller import Caller, SignedInBy
from sandbox.domain.session import SessionError, SessionStatus
from sandbox.engine.guest import Guest
from sandbox.preview.headers import PUBLIC_NAMES


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
    #: The ports whose apps speak TLS.
    tls_ports: tuple[int, ...] = ()
    pipeline_stage: str | None = None
    error: SessionError | None = None
    #: Whether the app is asked by the public host names, and not as `localhost:PORT`.
    public_names: bool = False

    def candidates(self, port: int) -> tuple[str, ...]:
        """The roles in which to look for a port: the one the plan names, else all, the previewed one first."""
        if port in self.port_roles:
            return (self.port_roles[port],)
        shown = self.port_roles.get(self.preview_port) if self.preview_port is not None else None
        return tuple(sorted(self.roles, key=lambda role: role != shown))


@dataclass(frozen=True, slots=True)
class Grant:
    """A visitor's permission to see a session's preview, known by a random key of 22 letters, digits, `-` and `_`."""

    key: str
    session_id: UUID
    by: SignedInBy
    #: The IP address from which the visitor signed in with a browser.
    address: str | None = None

    def name(self, port: int, *, public_names: bool) -> str:
        """The value of the visitor's cookie for a port, and the name of the file that leads there."""
        return f"{port}.{self.key}{PUBLIC_NAMES if public_names else ''}"


class PreviewResolver(Protocol):
    """Where sessions are. Reads only: nothing it does may start, recover or change a session."""

    async def resolve(self, session_id: UUID) -> PreviewTarget | None:
        """The session, over or not; None if there never was one."""

    def guest(self, session_id: UUID, role: str) -> Guest:
        """The guest agent of the role's container. No I/O."""


class PreviewGrants(Protocol):
    """The grants by which the edge lets visitors through."""

    async def create(self, session_id: UUID, by: SignedInBy, address: str | None) -> Grant | None:
        """A new grant for a visitor who has signed in, with a browser if there is an IP address; None if what the
        visitor signed in with is not good any more."""

    async def find(self, key: str, session_id: UUID) -> Grant | None:
        """The session's grant with this key; None if there is none, its time is over or its token is not good."""

    async def of_address(self, session_id: UUID, address: str) -> Grant | None:
        """A grant of the session for a browser that signed in from this IP address, the newest that is good."""

    async def of_token(self, session_id: UUID, caller: Caller) -> Grant | None:
        """The grant of a caller who sends a token with each request; None if the token is not good any more."""

    async def connect(self, grant: Grant, port: int, target: PreviewTarget, *, renew: bool) -> None:
        """Let the edge reach the port with this grant, in the first of the target's roles where something listens on
        it.

        `renew`: the edge could not connect with what there is. Raises GuestError: `port_not_open` if nothing listens,
        `agent_unreachable` if a guest agent does not answer.
        """


class PreviewSigner(Protocol):
    """Makes and reads the signatures of preview links."""

    def sign_preview(self, session_id: UUID, by: SignedInBy) -> str:
        """The signature in a link to the session's previews."""

    def read_preview(self, value: str, session_id: UUID) -> SignedInBy:
        """What a link to this session's preview was made with. Raises a SandboxError of kind UNAUTHENTICATED for a
        value that is forged, expired or another session's."""


class PreviewAuthenticator(Protocol):
    """Knows the callers of the API by their tokens."""

    async def caller(self, headers: Mapping[str, str]) -> Caller | None:
        """The caller that `authorization` or `x-api-key` names; None if it is none of ours. Names are in lower case."""
