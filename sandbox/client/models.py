"""The service's responses as dataclasses. Unknown fields are ignored; `raw` of a session contains all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sandbox.domain.events import EventType
from sandbox.domain.session import SessionStatus


def parse_time(value: str | None) -> datetime | None:
    """Parse an RFC 3339 time into a timezone-aware datetime. None gives None."""
    return datetime.fromisoformat(value) if value else None


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """The state of a session when it was read. `raw` is the whole response."""

    session_id: str
    user_id: str
    project_id: str | None
    status: SessionStatus
    runtime_type: str
    containers: dict[str, dict[str, Any]]
    preview_port: int | None
    backend_port: int | None
    preview_url: str | None
    pipeline_stage: str | None
    pipeline_run_id: str | None
    created_at: datetime | None
    last_active: datetime | None
    terminated_at: datetime | None
    expires_at: datetime | None
    #: If the status is `error`: code, message, hint and stage of the cause. Otherwise None.
    error: dict[str, Any] | None
    #: What lessons of earlier failures have changed in the plan of the current launch: lesson_id, role, remedy, change.
    lessons: list[dict[str, Any]]
    raw: dict[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SessionInfo:
        return cls(
            session_id=data["session_id"],
            user_id=data.get("user_id", ""),
            project_id=data.get("project_id"),
            status=SessionStatus(data["status"]),
            runtime_type=data.get("runtime_type", ""),
            containers=data.get("containers") or {},
            preview_port=data.get("preview_port"),
            backend_port=data.get("backend_port"),
            preview_url=data.get("preview_url"),
            pipeline_stage=data.get("pipeline_stage"),
            pipeline_run_id=data.get("pipeline_run_id"),
            created_at=parse_time(data.get("created_at")),
            last_active=parse_time(data.get("last_active")),
            terminated_at=parse_time(data.get("terminated_at")),
            expires_at=parse_time(data.get("expires_at")),
            error=data.get("error"),
            lessons=data.get("lessons") or [],
            raw=data,
        )


@dataclass(frozen=True, slots=True)
class LaunchEvent:
    """An event of a launch. Within a session, `seq` counts up from 1. `data` contains all fields of the event."""

    seq: int
    type: EventType
    run_id: str | None
    time: datetime | None
    data: dict[str, Any]

    @classmethod
    def from_json(cls, kind: str, data: dict[str, Any]) -> LaunchEvent:
        return cls(int(data["seq"]), EventType(kind), data.get("run_id"), parse_time(data.get("time")), data)


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the app's output. `stream` is stdout, stderr or system."""

    role: str
    stream: str
    line: str
    time: datetime | None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LogLine:
        return cls(
            data.get("role", ""), data.get("stream", "stdout"), data.get("line", ""), parse_time(data.get("time"))
        )


@dataclass(frozen=True, slots=True)
class KeptInstall:
    """Dependencies that are kept from a launch. `kind` is install, or downloads for packages that were downloaded."""

    key: str
    kind: str
    user_id: str
    project_id: str
    role: str
    runtime: str
    files: int
    size_bytes: int
    used_at: datetime | None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> KeptInstall:
        names = ("key", "kind", "user_id", "project_id", "role", "runtime", "files", "size_bytes")
        return cls(**{name: data[name] for name in names}, used_at=parse_time(data.get("used_at")))


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The result of a finished command."""

    exit_code: int
    stdout: str
    stderr: str
    duration_ms: int | None = None
    #: Whether it was killed because of its timeout.
    timed_out: bool = False
    #: Whether it printed more than stdout and stderr contain.
    truncated: bool = False

    @property
    def ok(self) -> bool:
        """Whether the exit code is 0."""
        return self.exit_code == 0


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file or folder in a container. `type` is file, directory, symlink or other; `size` is in bytes."""

    path: str
    type: str
    size: int
    #: Permissions in octal, such as 0644.
    mode: str | None
    modified_at: Any

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FileEntry:
        return cls(
            data["path"], data.get("type", "file"), data.get("size", 0), data.get("mode"), data.get("modified_at")
        )


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """A process that runs in the container of a role. `pid` and `ppid` are its numbers there."""

    role: str
    pid: int
    ppid: int
    command: str
    cpu_seconds: float
    memory_bytes: int
    started_at: datetime | None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ProcessEntry:
        return cls(
            data["role"],
            data["pid"],
            data.get("ppid", 0),
            data.get("command", ""),
            data.get("cpu_seconds", 0.0),
            data.get("memory_bytes", 0),
            parse_time(data.get("started_at")),
        )


@dataclass(frozen=True, slots=True)
class ProjectInfo:
    """An uploaded project. `plan` describes, per role, what a launch does. If it is not known it is empty, and
    `plan_problem` has `code`, `message`, `hint` and `looked_at`."""

    project_id: str
    digest: str | None
    files: int | None
    size_bytes: int | None
    plan: dict[str, Any]
    plan_problem: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ProjectInfo:
        return cls(
            data["project_id"],
            data.get("digest"),
            data.get("files"),
            data.get("size_bytes"),
            data.get("plan") or {},
            data.get("plan_problem"),
        )
