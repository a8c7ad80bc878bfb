"""The errors of this project. Each has a stable code, a message that names the cause and a hint for the next step.

They do not depend on HTTP: `statuses.py` maps `kind` to a status. Errors of libraries (SQLAlchemy, docker, httpx) are
translated once, in the package that calls the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """The kind of failure, from the caller's point of view."""

    #: The request is malformed or breaks a rule; the same request cannot succeed.
    INVALID = "invalid"
    #: The request has no valid credentials.
    UNAUTHENTICATED = "unauthenticated"
    #: The caller is known and may not do this.
    FORBIDDEN = "forbidden"
    #: It does not exist, or the caller may not see it.
    NOT_FOUND = "not_found"
    #: It is in a state that does not allow the request.
    CONFLICT = "conflict"
    #: It is not at the version that the request names.
    PRECONDITION = "precondition"
    #: It existed and has ended.
    GONE = "gone"
    #: More bytes or items than are accepted.
    TOO_LARGE = "too_large"
    #: The request is for another service.
    MISDIRECTED = "misdirected"
    #: The content type is not supported.
    UNSUPPORTED = "unsupported"
    #: The caller exceeds a limit or a rate.
    TOO_MANY = "too_many"
    #: A dependency of the service does not answer; the same request may succeed later.
    UNAVAILABLE = "unavailable"
    #: A time limit was exceeded.
    TIMEOUT = "timeout"
    #: An unexpected error of the service itself.
    INTERNAL = "internal"


class SandboxError(Exception):
    """Base of all errors that this project raises on purpose.

    `code` is stable and part of the HTTP contract; `message` names the cause; `hint` tells the user the next step.
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

    def __reduce__(self) -> tuple[Any, ...]:
        """Worker processes send errors to the service; the constructors of the classes have different parameters."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[SandboxError], args: tuple[Any, ...], state: dict[str, Any]) -> SandboxError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class InvalidInput(SandboxError):
    """The input is malformed or breaks a rule."""

    code = "invalid_input"
    kind = Kind.INVALID


class NotFound(SandboxError):
    """It does not exist, or belongs to another user."""

    code = "not_found"
    kind = Kind.NOT_FOUND


class Conflict(SandboxError):
    """The resource is in a state that does not allow the request."""

    code = "conflict"
    kind = Kind.CONFLICT


class Unavailable(SandboxError):
    """A dependency of the service does not answer now."""

    code = "unavailable"
    kind = Kind.UNAVAILABLE


class DatabaseUnavailable(Unavailable):
    """PostgreSQL does not answer."""

    code = "database_unavailable"


class DatabaseFull(DatabaseUnavailable):
    """PostgreSQL answers, or would, but its file system has no room left. Refused writes succeed once there is."""

    code = "disk_full"


class MigrationError(SandboxError):
    """The database and the migration files do not match; nothing was changed."""

    code = "migration_refused"
    kind = Kind.CONFLICT


class EngineError(SandboxError):
    """The container engine refused a request, failed or does not answer."""

    code = "engine_error"
    kind = Kind.UNAVAILABLE


class GuestError(SandboxError):
    """The guest agent in a container does not answer, or refused."""

    code = "agent_error"
    kind = Kind.UNAVAILABLE


class LostOwnership(SandboxError):
    """Another replica owns the session now, or its work has changed: this replica must stop and write nothing."""

    code = "lost_ownership"
    kind = Kind.CONFLICT


class StageFailed(SandboxError):
    """A launch stage failed. The code is one of `domain.failures`, to which lessons refer."""

    kind = Kind.CONFLICT

    def __init__(self, code: str, message: str, hint: str = "", *, details: Mapping[str, Any] | None = None) -> None:
        """`details` are the particulars of the cause, as `domain.evidence.FailureEvidence.to_json` gives them."""
        super().__init__(message, hint=hint, code=code)
        self.details = dict(details) if details else None
