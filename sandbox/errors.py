"""The one tree of errors. Each has a stable code, a message that names the cause and a hint for the next step.

No HTTP here: `api/http/problems.py` maps `kind` to a status. Foreign errors (SQLAlchemy, docker, httpx) are translated
once, in the room that calls the foreign library.
"""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What sort of failure it is, from the caller's point of view."""

    #: The request is malformed or breaks a rule; sending it again unchanged cannot help.
    INVALID = "invalid"
    #: Nobody, or nobody known, is calling.
    UNAUTHENTICATED = "unauthenticated"
    #: The caller is known and may not do this.
    FORBIDDEN = "forbidden"
    #: It does not exist, or not for this caller.
    NOT_FOUND = "not_found"
    #: It exists and is in a state that does not allow this.
    CONFLICT = "conflict"
    #: It existed and is over for good.
    GONE = "gone"
    #: More bytes or items than are taken.
    TOO_LARGE = "too_large"
    #: Not one of the kinds of content that are taken.
    UNSUPPORTED = "unsupported"
    #: The caller asks more often than it may.
    TOO_MANY = "too_many"
    #: Something this service stands on does not answer; the same request may work later.
    UNAVAILABLE = "unavailable"
    #: Something took longer than it may.
    TIMEOUT = "timeout"
    #: Our own mistake.
    INTERNAL = "internal"


class SandboxError(Exception):
    """Base of every error this project raises on purpose.

    `code` is stable and part of the contract; `message` names the cause; `hint` says what to do next.
    """

    code: str = "internal_error"
    kind: Kind = Kind.INTERNAL

    def __init__(self, message: str, *, hint: str = "", code: str | None = None, kind: Kind | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code
        if kind is not None:
            self.kind = kind

    def __str__(self) -> str:
        return self.message


class InvalidInput(SandboxError):
    """Input from outside that cannot be accepted as it is."""

    code = "invalid_input"
    kind = Kind.INVALID


class NotFound(SandboxError):
    """It does not exist, or belongs to somebody else."""

    code = "not_found"
    kind = Kind.NOT_FOUND


class Conflict(SandboxError):
    """The thing is in a state that does not allow the request."""

    code = "conflict"
    kind = Kind.CONFLICT


class Unavailable(SandboxError):
    """Something the service stands on does not answer now."""

    code = "unavailable"
    kind = Kind.UNAVAILABLE


class DatabaseUnavailable(Unavailable):
    """PostgreSQL does not answer."""

    code = "database_unavailable"


class MigrationError(SandboxError):
    """The database and the migration files do not fit together; nothing was changed."""

    code = "migration_refused"
    kind = Kind.CONFLICT


class EngineError(SandboxError):
    """The container engine refused or failed."""

    code = "engine_error"
    kind = Kind.UNAVAILABLE


class GuestError(SandboxError):
    """The guest agent in a container does not answer, or refused."""

    code = "agent_error"
    kind = Kind.UNAVAILABLE


class LostOwnership(SandboxError):
    """Another replica owns this session now: whatever this one was doing for it must stop and write nothing."""

    code = "lost_ownership"
    kind = Kind.CONFLICT


class StageFailed(SandboxError):
    """A launch stage could not do its work. The code is stable: lessons refer to it."""

    kind = Kind.CONFLICT

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
