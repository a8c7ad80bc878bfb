"""The two contracts everything above hangs on: the container engine, and the guest agent inside a container.

"Gone" and "already there" are answers here, never errors. `ensure_*` looks before it makes, so each call may be
repeated after a crash at any point. Foreign errors are translated into `EngineError` and `GuestError` by the
implementations; nothing above knows the Docker SDK.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol
from uuid import UUID

#: Port of a container's loopback on which its guest agent takes what apps report, OTLP over HTTP.
EXPORTS_PORT: Final = 14318


class ResourceKind(StrEnum):
    CONTAINER = "container"
    NETWORK = "network"
    VOLUME = "volume"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one container may use."""

    memory_bytes: int
    cpus: float
    pids: int


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One role's container, wholly described. The name is derived from session and role (`labels.container_name`)."""

    session_id: UUID
    role: str
    #: Image reference as `RuntimeImages` knows it.
    image: str
    runtime: str
    #: Network to join (name); None joins the deployment's shared bridge, where containers cannot talk to each other.
    network: str | None
    limits: Limits
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainerState:
    """What the engine says of a container at this moment."""

    id: str
    name: str
    #: created, running, paused, restarting, exited, dead
    status: str
    ip: str | None
    exit_code: int | None
    out_of_memory: bool
    started_at: datetime | None
    session_id: UUID | None
    role: str | None


@dataclass(frozen=True, slots=True)
class Resource:
    """A container, network or volume that carries this deployment's labels."""

    kind: ResourceKind
    name: str
    session_id: UUID | None
    role: str | None
    created_at: datetime | None
    #: Of a container: created, running, paused, restarting, removing, exited, dead.
    status: str | None = None
    #: Of a container.
    id: str | None = None


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """Something happened to one of this deployment's containers: start, die, oom, destroy."""

    action: str
    session_id: UUID
    role: str
    container_id: str
    exit_code: int | None
    time: datetime


class Engine(Protocol):
    """A container engine. Every call is async and bounded by a deadline; none blocks the event loop."""

    async def ping(self) -> dict[str, Any]:
        """Version and facts of the engine. Raises EngineError if it does not answer."""

    async def ensure_network(self, session_id: UUID) -> str:
        """The session's own network, made if absent; its name."""

    async def ensure_container(self, spec: ContainerSpec) -> ContainerState:
        """The role's container on its `/workspace` volume, made if absent and started if not running."""

    async def inspect_container(self, session_id: UUID, role: str) -> ContainerState | None:
        """What the engine says of the role's container; None if there is none."""

    async def remove_session(self, session_id: UUID) -> list[Resource]:
        """Remove every container, network and volume of the session, in that order; what was removed."""

    async def remove(self, resource: Resource) -> bool:
        """Remove one resource by name; False if it was gone already."""

    async def list_resources(self) -> list[Resource]:
        """Everything of this deployment that the engine has."""

    async def container_logs(self, session_id: UUID, role: str, tail: int = 50) -> str:
        """The last lines the container's own init printed; for diagnosis when the guest agent does not answer."""

    def events(self) -> AsyncIterator[EngineEvent]:
        """Events of this deployment's containers from now on. Ends with EngineError when the engine goes away."""

    def guest(self, session_id: UUID, role: str) -> Guest:
        """The guest agent in the role's container. No I/O; the first call connects."""


class Stream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class ExecResult:
    """A finished command. Output is bytes as printed; `truncated` if more than the limit was printed."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    duration_ms: int
    timed_out: bool
    truncated: bool
    #: Number of the signal that ended it, or None.
    signal: int | None = None
    #: The kernel killed something of it for memory.
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """A piece of a process's output. `offset` is that of its first byte in the process's whole combined output log."""

    stream: Stream
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A named process. `exit_code` None while it runs."""

    name: str
    pid: int
    command: str
    running: bool
    exit_code: int | None
    signal: int | None
    started_at: float
    ended_at: float | None
    #: Bytes printed so far: the offset after the last one.
    output_end: int
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class FileInfo:
    path: str
    #: file, directory, symlink, other
    type: str
    size: int
    mode: int
    modified_at: float


@dataclass(frozen=True, slots=True)
class GuestStats:
    """Figures of the container as seen from inside. Bytes, counts and cpu seconds since start."""

    cpu_seconds: float
    memory_bytes: int
    memory_limit_bytes: int | None
    pids: int
    disk_used_bytes: int
    disk_total_bytes: int
    network_received_bytes: int
    network_sent_bytes: int


@dataclass(frozen=True, slots=True)
class Export:
    """An OTLP request that an app has sent, and waits for the answer of."""

    number: int
    #: /v1/traces or /v1/logs
    path: str
    media_type: str
    encoding: str
    #: The `Authorization` header.
    authorization: str
    body: bytes


@dataclass(frozen=True, slots=True)
class ExportAnswer:
    """The answer to the export of that number. `retry_after` in seconds."""

    number: int
    status: int
    media_type: str
    body: bytes
    retry_after: int | None = None


class Exports(Protocol):
    """What a container's apps report, as it comes. Fetch, answer, and so on. Raises `GuestError` when the connection
    is over: the container has ended, or another has come for its exports. What is fetched and not answered then is
    given to the next who comes."""

    async def arrived(self) -> None:
        """Return once there is something to fetch, which may take for ever."""

    async def fetch(self) -> list[Export]:
        """All that wait, up to some megabytes. The next come once these are answered."""

    async def answer(self, answers: Sequence[ExportAnswer]) -> None:
        """Answer all that were fetched. Those that nobody waits for any more are passed over."""

    async def close(self) -> None: ...


class PtySession(Protocol):
    """A terminal. `read` returns b"" at its end."""

    async def read(self) -> bytes: ...
    async def write(self, data: bytes) -> None: ...
    async def resize(self, columns: int, rows: int) -> None: ...
    async def close(self) -> None: ...


class Guest(Protocol):
    """The guest agent in one container. Commands run as the unprivileged user (uid 1000), in `/workspace` unless told.

    Raises `GuestError` with codes: `agent_unreachable` (no socket, refused, hung up), `process_not_found`,
    `process_exists` , `file_not_found`, `file_refused` (permission, is a directory, ...), `port_not_open`,
    `command_not_found`, `agent_refused` (anything else, with the guest agent's words).
    """

    async def wait_ready(self, timeout_seconds: float) -> None:
        """Return once the guest agent answers; GuestError `agent_unreachable` after the timeout."""

    async def exec(
        self,
        command: str | list[str],
        *,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        stdin: bytes | None = None,
        timeout_seconds: float | None = None,
        max_output_bytes: int = 1_048_576,
    ) -> ExecResult:
        """Run to the end and give all of it back. A str is run by `sh -c` (bash where there is one), a list as it is.
        At the timeout the whole process group is killed and `timed_out` is true."""

    async def start(
        self,
        name: str,
        command: str | list[str],
        *,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        restart_finished: bool = True,
    ) -> ProcessInfo:
        """Start a named process, its output kept in the container.

        One that runs under this name is returned as it is, never started twice. A finished one is started anew, or
        returned if `restart_finished` is False.
        """

    async def process(self, name: str) -> ProcessInfo | None:
        """The named process, running or finished; None if there never was one."""

    async def processes(self) -> list[ProcessInfo]:
        """All named processes."""

    def output(self, name: str, *, offset: int = 0, follow: bool = True) -> AsyncIterator[OutputChunk]:
        """The process's output from `offset`. With `follow`, on until it has ended and all is read; else what is there.
        Offsets are those of the combined log; an offset that has been rotated away starts at the oldest kept."""

    async def wait(self, name: str) -> ProcessInfo:
        """Return once the named process has ended."""

    async def signal(self, name: str, signal: int) -> None:
        """Signal the whole process group of a named process; done already is success."""

    async def forget(self, name: str) -> None:
        """Kill the named process if it runs, and drop it and its output; unknown already is success."""

    async def write_stdin(self, name: str, data: bytes, *, close: bool = False) -> None: ...

    async def read_file(self, path: str) -> AsyncIterator[bytes]:
        """The file's bytes. Relative paths are below /workspace. Raises before the first byte is given."""

    async def write_file(self, path: str, data: AsyncIterator[bytes] | bytes, *, mode: int | None = None) -> FileInfo:
        """Write atomically (a temporary file beside it, renamed); makes missing parent folders; owned by uid 1000."""

    async def stat(self, path: str) -> FileInfo | None: ...
    async def list_files(self, path: str, *, depth: int = 1) -> list[FileInfo]: ...
    async def make_directory(self, path: str) -> None: ...
    async def move(self, source: str, target: str) -> None: ...
    async def remove(self, path: str) -> bool:
        """Remove a file or a whole folder; False if it was gone already."""

    def watch(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Changes below a folder: {"type": created|modified|removed, "path": ...}."""

    async def put_tar(self, path: str, data: AsyncIterator[bytes] | bytes) -> None:
        """Unpack a (gzipped) tar below a folder, owned by uid 1000; links and paths out of the folder are refused."""

    def get_tar(self, path: str) -> AsyncIterator[bytes]:
        """The folder as a gzipped tar."""

    async def stats(self) -> GuestStats: ...

    async def listening_ports(self) -> list[int]:
        """TCP ports something in the container listens on, on any address, IPv4 and IPv6; not what leads elsewhere."""

    async def tunnel(self, port: int) -> socket.socket:
        """A connected, non-blocking socket whose bytes go to the port on the container's own loopback (127.0.0.1, else
        ::1). GuestError `port_not_open` if nothing listens there."""

    async def forward_ports(self, ports: dict[int, str], *, own: int | None = None) -> dict[int, str]:
        """From now on these ports of the container's own localhost, and no others, lead to the same ports of these
        hosts. The port `own`, if its app listens on the loopback only, is open to the other containers too. Answers
        why, by port, where it is not so: something listens on it already, or the host is not known."""

    async def pty(
        self,
        command: str | list[str] | None = None,
        *,
        columns: int = 80,
        rows: int = 24,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
    ) -> PtySession:
        """A terminal with a login shell, or with the command."""

    async def exports(self) -> Exports:
        """Come for what the container's apps report, on a connection that is kept. GuestError `agent_refused` by an
        guest agent of an older image, which takes no reports."""

    async def aclose(self) -> None: ...
