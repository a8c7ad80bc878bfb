"""What a request uses, by its method and path: how its body is taken and what it counts as. Pure: no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

from sandbox.settings import Settings

MIB: Final = 1024 * 1024


class Body(Enum):
    """Where a request's body goes."""

    #: It is held in memory.
    MEMORY = "memory"
    #: It is written to a file.
    DISK = "disk"
    #: It is passed on piece by piece.
    PASSED_ON = "passed on"


class Activity(Enum):
    """What a request counts as."""

    REQUEST = "requests"
    #: An answer that goes on until one side ends it: server-sent events.
    STREAM = "streams"
    TERMINAL = "terminals"


@dataclass(frozen=True, slots=True)
class Use:
    """What one request uses."""

    activity: Activity
    body: Body
    #: Most bytes of the body that are accepted here; None if the route has a limit of its own.
    max_bytes: int | None
    #: The setting that raises `max_bytes`.
    setting: str = ""


_PROJECT = re.compile(r"PUT /api/v1/projects/[^/]+")
_REPORT = re.compile(r"POST /api/v1/(test-results/junit|coverage/(cobertura|coverage-py)|documents/files)")
_RECORDS = re.compile(r"POST /v1/(traces|logs)")
_FILE = re.compile(r"PUT /api/v1/sessions/[^/]+/files(/archive)?")
_STREAM = re.compile(r"GET /api/v1/(sessions/[^/]+/(events|logs)|logs/tail)")
_COMMAND = re.compile(r"POST /api/v1/sessions/[^/]+/exec")


def use_of(scope: Scope, settings: Settings) -> Use:
    """What an HTTP request or WebSocket uses."""
    if scope["type"] == "websocket":
        return Use(Activity.TERMINAL, Body.PASSED_ON, None)
    request = f"{scope['method']} {scope['path']}"
    if _FILE.fullmatch(request):
        return Use(Activity.REQUEST, Body.PASSED_ON, settings.max_file_mb * MIB, "SANDBOX_MAX_FILE_MB")
    if _PROJECT.fullmatch(request) or _REPORT.fullmatch(request):
        return Use(Activity.REQUEST, Body.DISK, None)
    if _RECORDS.fullmatch(request):
        return Use(Activity.REQUEST, Body.MEMORY, None)
    streams = _STREAM.fullmatch(request) or (
        _COMMAND.fullmatch(request) and "text/event-stream" in Headers(scope=scope).get("accept", "")
    )
    activity = Activity.STREAM if streams else Activity.REQUEST
    return Use(activity, Body.MEMORY, settings.max_body_kb * 1024, "SANDBOX_MAX_BODY_KB")
