"""What viewers of a launch see. The names are the HTTP contract's; `data` is what an SSE `data:` line carries."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


class EventType(StrEnum):
    #: A stage started, completed, failed or was skipped.
    STAGE = "stage"
    #: A line of output of a stage.
    LOG = "log"
    #: The session's status changed.
    STATUS = "status"
    #: The preview can be opened.
    PREVIEW = "preview"
    #: Why the launch failed, or what was found wrong with the session.
    PROBLEM = "problem"
    #: The run is over; always the last of a run.
    END = "end"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that has no seq yet."""

    type: EventType
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """A durable event. `(session_id, seq)` is unique; seq rises by one from 1 within a session."""

    session_id: UUID
    seq: int
    run_id: UUID
    type: EventType
    time: datetime
    data: dict[str, Any]
