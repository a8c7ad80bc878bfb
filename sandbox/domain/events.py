"""Events of a session. Their types are part of the HTTP contract; `data` is sent in the `data:` line of SSE."""

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
    #: Why the launch failed, or how the session was lost.
    PROBLEM = "problem"
    #: The run has ended. Always the last event of a run.
    END = "end"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that is not stored yet, and so has no sequence number."""

    type: EventType
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """A stored event. Within a session, `seq` counts up from 1 without gaps."""

    session_id: UUID
    seq: int
    run_id: UUID
    type: EventType
    time: datetime
    data: dict[str, Any]
