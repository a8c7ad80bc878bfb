"""Log lines as viewers receive them: in the order in which their transactions began, each with its position."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import datetime

from sandbox.db.connection import Database
from sandbox.db.tables import Row
from sandbox.errors import InvalidInput
from sandbox.events.sse import encode_event
from sandbox.records import store

PAGE = 500
_POSITION = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A position in the stream of log lines: all lines up to this one were sent. Later positions are greater."""

    transaction_id: int
    log_id: int

    def encode(self) -> str:
        """The position as the `id:` of an SSE event."""
        return f"{self.transaction_id}-{self.log_id}"

    @classmethod
    def decode(cls, text: str) -> Position:
        """The position that a `Last-Event-ID` names. Raises InvalidInput."""
        match = _POSITION.fullmatch(text)
        if match is None:
            raise InvalidInput(
                "Last-Event-ID is not an id of this stream",
                hint="Send the `id:` of the last event received, or connect without it.",
                code="event_id_invalid",
            )
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class LogFilter:
    """The lines that a viewer requested; None matches every value."""

    user_id: str | None = None
    level: str | None = None
    service: str | None = None

    def matches(self, line: Line) -> bool:
        own = line.values
        return (
            self.user_id in (None, own.user_id)
            and self.level in (None, own.level)
            and self.service in (None, own.service)
        )


@dataclass(frozen=True, slots=True)
class Line:
    """A log line as an SSE event, with the values that it can be filtered by."""

    position: Position
    values: LogFilter
    event: bytes


async def read_page(db: Database, after: Position, horizon: int, wanted: LogFilter) -> tuple[Position, list[Line]]:
    """The next PAGE lines of transactions below `horizon`, and the position at the end of the page.

    Raises DatabaseUnavailable.
    """
    rows = await store.logs_after(db, after.transaction_id, after.log_id, horizon, PAGE, asdict(wanted))
    lines = [_line(row) for row in rows]
    return lines[-1].position if len(lines) == PAGE else Position(horizon, 0), lines


def _line(row: Row) -> Line:
    position = Position(row.pop("transaction_id"), row["log_id"])
    event = encode_event("log", row, event_id=position.encode(), default=_time)
    return Line(position, LogFilter(row["user_id"], row["level"], row["service"]), event)


def _time(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")
