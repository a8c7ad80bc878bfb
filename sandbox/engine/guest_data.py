"""What a guest agent answers: the data of `engine/guest.py`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Stream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class ExecResult:
    """The result of a finished command."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    duration_ms: int
    timed_out: bool
    #: Whether the command printed more than the limit, so that the rest is missing.
    truncated: bool
    #: Number of the signal that ended the command, if one did.
    signal: int | None = None
    #: Whether the kernel killed one of the command's processes for lack of memory.
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """A piece of a process's output. `offset` is the position of its first byte in the process's combined log of
    stdout and stderr, in bytes."""

    stream: Stream
    offset: int
    data: bytes
    #: When it was printed, as Unix time in seconds. None from a guest agent of an earlier release.
    time: float | None = None


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A named process of a container, running or finished."""

    name: str
    pid: int
    command: str
    running: bool
    #: None while the process runs.
    exit_code: int | None
    #: Number of the signal that ended the process, if one did.
    signal: int | None
    #: Unix time, in seconds.
    started_at: float
    ended_at: float | None
    #: Number of bytes printed so far, which is the offset after the last one.
    output_end: int
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """A process that runs in a container, named or not."""

    pid: int
    ppid: int
    #: The program with its arguments, cut to some hundred characters.
    command: str
    cpu_seconds: float
    memory_bytes: int
    #: Unix time, in seconds.
    started_at: float


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file or folder in a container."""

    path: str
    #: file, directory, symlink, other
    type: str
    size: int
    mode: int
    modified_at: float


@dataclass(frozen=True, slots=True)
class Changes:
    """What was added or changed below folders since a moment."""

    #: Files, links and folders.
    files: int
    #: Of the files among them.
    bytes: int
    #: The topmost folders in which everything is new.
    folders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GuestStats:
    """Resource usage of a container, as measured from inside. Network counters and processor time count from the start
    of the container."""

    cpu_seconds: float
    memory_bytes: int
    memory_limit_bytes: int | None
    pids: int
    disk_used_bytes: int
    disk_total_bytes: int
    network_received_bytes: int
    network_sent_bytes: int


@dataclass(frozen=True, slots=True)
class UsageSample:
    """One measurement of a container's resource usage. Processor time and network count from the container's start."""

    #: Seconds since 1970.
    time: float
    cpu_seconds: float
    memory_bytes: int
    disk_used_bytes: int
    network_received_bytes: int
    network_sent_bytes: int


@dataclass(frozen=True, slots=True)
class Export:
    """An OTLP request that an app has sent and that waits for its response."""

    #: Identifies the request on its connection; the `ExportAnswer` repeats it.
    number: int
    #: /v1/traces or /v1/logs
    path: str
    media_type: str
    #: The `Content-Encoding` header; empty if there is none.
    encoding: str
    #: The `Authorization` header; empty if there is none.
    authorization: str
    body: bytes


@dataclass(frozen=True, slots=True)
class ExportAnswer:
    """The response to the export of the same number."""

    number: int
    #: HTTP status code.
    status: int
    media_type: str
    body: bytes
    #: The `Retry-After` header, in seconds.
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class PortSocket:
    """A unix socket that leads to a port of the container's apps."""

    port: int
    #: Open now.
    connections: int
    #: Since a client last sent something.
    idle_seconds: float
