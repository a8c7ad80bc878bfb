"""What became of the body of an export request: its records are stored, or it is refused."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.errors import Kind, SandboxError


@dataclass(frozen=True, slots=True)
class Stored:
    """How many records of the body were written, how many cannot be stored, and why the first of those cannot."""

    written: int
    rejected: int
    reason: str = ""
    #: Of the rows that were written.
    size: int = 0

    @property
    def records(self) -> int:
        """All records of the body."""
        return self.written + self.rejected


@dataclass(frozen=True, slots=True)
class Refused:
    """Why no record of the body was written. A value, because it crosses processes and packages as a result does."""

    code: str
    kind: Kind
    message: str
    hint: str = ""
    #: Seconds after which the client may send again; None for the service's usual number.
    retry_after_seconds: int | None = None
    #: The number of records, if they are too many.
    records: int = 0

    @classmethod
    def from_error(cls, error: SandboxError) -> Refused:
        """The refusal for an error that the client caused or can wait out. Raises `error` if it is an internal one."""
        if error.kind is Kind.INTERNAL:
            raise error
        return cls(error.code, error.kind, error.message, error.hint)


Outcome = Stored | Refused

#: Code of the refusal of a body that has more records than its sender may send now.
TOO_MANY_RECORDS = "too_many_records"
