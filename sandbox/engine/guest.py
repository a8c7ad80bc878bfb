"""The contract of the guest agent: the program inside every container that runs commands and serves files.

Calls may be repeated after a crash at any point. Absence is a result, not an error. The client of the real guest agent
is `guest_client/`; it translates every error into `GuestError`.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from sandbox.engine.guest_data import (
    Changes,
    ExecResult,
    Export,
    ExportAnswer,
    FileInfo,
    GuestStats,
    OutputChunk,
    PortSocket,
    ProcessInfo,
    RunningProcess,
    UsageSample,
)
from sandbox.errors import GuestError

#: Port on a container's loopback interface where its guest agent accepts the app's telemetry (OTLP over HTTP).
EXPORTS_PORT: Final = 14318


class Exports(Protocol):
    """A connection that receives the OTLP exports of a container's apps. Call `fetch`, then `answer`, and repeat.

    Every method raises `GuestError` `agent_unreachable` once the connection is closed, either because the container has
    ended or because a later call of `Guest.exports` has replaced it. Exports that were fetched and not answered by then
    are delivered again on the next connection. Not for use by several tasks at once.
    """

    async def arrived(self) -> None:
        """Return once there is something to fetch. There is no timeout."""

    async def fetch(self) -> list[Export]:
        """Return all exports that wait, up to some megabytes. Waits for one if there is none.

        Further exports are delivered only after these are answered.
        """

    async def answer(self, answers: Sequence[ExportAnswer]) -> None:
        """Answer all exports of the last `fetch`. Answers to apps that have disconnected are discarded."""

    async def close(self) -> None:
        """Close the connection."""


class PtySession(Protocol):
    """A connection to a terminal in a container."""

    #: Where the output that `read` returns begins, in bytes since the terminal was opened.
    position: int
    #: The exit code of the command, once `read` has returned b"" because it has ended.
    exit_code: int | None
    #: True once `read` has returned b"" because another connection has the terminal.
    is_taken_over: bool

    async def read(self) -> bytes:
        """Return what the terminal prints next, or b"" once its command has ended or the connection is lost."""

    async def write(self, data: bytes) -> None:
        """Send keyboard input."""

    async def resize(self, columns: int, rows: int) -> None:
        """Change the terminal's size, in characters."""

    async def close(self) -> None:
        """Close the terminal. What runs in it receives SIGHUP."""

    async def leave(self) -> None:
        """Close the connection. A terminal that was opened with a name goes on for ten minutes, any other is closed."""


class Guest(Protocol):
    """The guest agent in one container.

    Commands run as the session's unprivileged user, in `/workspace` unless `cwd` names another folder. Relative paths
    are below `/workspace`. Named processes and their output outlive the connection and this service's process; they end
    with the container.

    Every method may raise `GuestError`, with one of these codes: `agent_unreachable` (no socket, connection refused or
    closed), `process_not_found`, `process_exists`, `file_not_found`, `file_refused` (no permission, is a folder, ...),
    `port_not_open`, `command_not_found`, and `agent_refused` for anything else, with the guest agent's own message.
    """

    async def wait_ready(self, timeout_seconds: float) -> None:
        """Return once the guest agent answers. Raises GuestError `agent_unreachable` after the timeout."""

    async def set_variables(self, variables: Mapping[str, str]) -> None:
        """Set these variables for everything that is started from now on, beside those of the container.

        They replace those of an earlier call, and outlive a restart of the container. Variables of a command override
        them.
        """

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
        """Run a command, wait for its end and return its output.

        A str is run by a shell (bash if the image has it, else sh), a list without one. After `timeout_seconds` the
        whole process group is killed and `timed_out` is True; None means no timeout. Output beyond `max_output_bytes`
        is dropped and `truncated` is True.
        """

    async def start(
        self,
        name: str,
        command: str | list[str],
        *,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        restart_finished: bool = True,
        paced: bool = False,
    ) -> ProcessInfo:
        """Start a named process whose output is stored in the container.

        Old output is dropped to make room for new, unless it is `paced`: then the process waits while its output is not
        read, so that none is lost, and it must be read.

        If a process of this name is running, it is returned and no second one is started. If one has finished, it is
        started again, or returned if `restart_finished` is False.
        """

    async def process(self, name: str) -> ProcessInfo | None:
        """Return the named process, running or finished, or None if there never was one."""

    async def processes(self) -> list[ProcessInfo]:
        """Return all named processes."""

    def output(self, name: str, *, offset: int = 0, follow: bool = True) -> AsyncIterator[OutputChunk]:
        """Return the process's output from `offset` on, in the order in which it was printed.

        With `follow` the iterator ends once the process has ended and everything has been read. Without it, it ends
        after the output so far. If the log's rotation has removed `offset`, it starts at the oldest byte still stored.
        """

    async def wait(self, name: str) -> ProcessInfo:
        """Wait for the named process to end and return it. There is no timeout."""

    async def signal(self, name: str, signal: int) -> None:
        """Send a signal to the whole process group of a named process. Does nothing if it has already ended."""

    async def kill_all(self) -> int:
        """Kill everything that was ever started in the container and still runs. Return how many processes that was.

        Needs no new process, so it works when the container is at its limit of processes.
        """

    async def stop(self) -> None:
        """End everything and the guest agent itself, and with it the container. Does not wait for that."""

    async def running_processes(self) -> list[RunningProcess]:
        """Return every process of the sandbox, oldest first, except those of the guest agent.

        GuestError `agent_refused` by a guest agent of an earlier release.
        """

    async def signal_process(self, pid: int, signal: int) -> None:
        """Send a signal to one of `running_processes`. Raises GuestError `process_not_found` if there is none."""

    async def forget(self, name: str) -> None:
        """Kill the named process if it runs, and delete it and its output. Does nothing if there is none."""

    async def write_stdin(self, name: str, data: bytes, *, close: bool = False) -> None:
        """Write to the standard input of a named process, and close it afterwards if `close` is True."""

    async def read_file(self, path: str) -> AsyncIterator[bytes]:
        """Open a file and return its content in pieces. Errors of opening are raised here, before the first piece."""

    async def write_file(self, path: str, data: AsyncIterator[bytes] | bytes, *, mode: int | None = None) -> FileInfo:
        """Write a file atomically: a temporary file beside it is renamed. Creates missing parent folders. The file
        belongs to the session's user."""

    async def stat(self, path: str) -> FileInfo | None:
        """Return the file's metadata, or None if it does not exist."""

    async def list_files(self, path: str, *, depth: int = 1, after: str = "") -> list[FileInfo]:
        """Return the entries of a folder, and those of its subfolders down to `depth` levels, ordered by their paths.

        A large folder comes in pages of some hundred entries. The next page comes `after` the last entry, whose path is
        given relative to the folder; the page after the last one is empty.
        """

    async def make_directory(self, path: str) -> None:
        """Create a folder and its missing parents. Does nothing if it exists."""

    async def move(self, source: str, target: str) -> None:
        """Rename a file or folder. Creates missing parent folders of the target."""

    async def remove(self, path: str) -> bool:
        """Remove a file or a whole folder. Return False if it was already gone."""

    def watch(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Return the changes below a folder, from now on: {"type": created|modified|removed, "path": ...}."""

    async def put_tar(self, path: str, data: AsyncIterator[bytes] | bytes) -> None:
        """Unpack a tar, gzipped or not, into a folder. The files belong to the session's user. Links and paths that
        lead out of the folder are refused."""

    async def get_tar(self, path: str, *, exclude: Collection[str] = ()) -> AsyncIterator[bytes]:
        """Open a folder and return it as a gzipped tar, in pieces, without files and folders named in `exclude`. Errors
        of opening are raised here, before the first piece. What cannot be read is left out."""

    async def changes(
        self, folders: Sequence[str], *, since: str | None = None, excluded: Sequence[str] = ()
    ) -> Changes:
        """Return what was added or changed below folders, without `excluded` ones, since the file `since` was written.

        Without `since`, everything counts. A folder that does not exist is empty. GuestError `agent_refused` by a guest
        agent of an earlier release.
        """

    def pack_changes(
        self, folders: Sequence[str], *, since: str | None = None, excluded: Sequence[str] = ()
    ) -> AsyncIterator[bytes]:
        """Return a tar of what `changes` counts, with links, modes and times. The iterator raises GuestError if
        something in it changes meanwhile."""

    async def unpack_changes(self, data: AsyncIterator[bytes]) -> None:
        """Put everything of a tar of `pack_changes` in its place, as the session's user. For archives of the session's
        own owner only: their links may lead anywhere. Raises GuestError `file_refused` if it is no whole tar."""

    async def stats(self) -> GuestStats:
        """Return the container's current resource usage."""

    async def stats_history(self) -> list[UsageSample]:
        """Return the measurements of the last hour, oldest first. The first is taken when the guest agent starts."""

    async def listening_ports(self) -> list[int]:
        """Return the TCP ports on which a process of the container listens, on any IPv4 or IPv6 address. Ports that
        `forward_ports` has opened are not among them."""

    async def tunnel(self, port: int) -> socket.socket:
        """Return a connected, non-blocking socket to a port of the container, on 127.0.0.1, else on ::1, else on
        its own address.

        The caller closes it. Raises GuestError `port_not_open` if nothing listens there.
        """

    async def forward_ports(
        self, ports: dict[int, str], *, own: int | None = None, planned: int | None = None
    ) -> dict[int, str]:
        """Forward ports of the container's localhost to the same ports of other hosts, by port.

        Replaces the ports of the call before. The port `own` is opened to the other containers, too, if its app
        listens on the loopback only. The port `planned`, under which the other containers expect that app, leads to
        `own`; a guest agent of an earlier release leaves it out.

        Returns:
            By port, the reason why it is not forwarded: a process listens on it already, or the host is unknown.
        """

    async def port_sockets(
        self, *, opened: Mapping[str, int] | None = None, closed: Sequence[str] = ()
    ) -> dict[str, PortSocket]:
        """Open and close unix sockets that lead to ports of the container's apps, and describe all that are open then.

        Names consist of lower-case hex digits, a hyphen and decimal digits. Closing a socket ends its connections. A
        port on which nothing listens gets no socket. `Engine.port_socket` is where they are. GuestError `agent_refused`
        by a guest agent of an earlier release, which has none.
        """

    async def pty(
        self,
        command: str | list[str] | None = None,
        *,
        columns: int = 80,
        rows: int = 24,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        terminal: str | None = None,
        after: int = 0,
    ) -> PtySession:
        """Open a terminal that runs the command, or an interactive shell if there is none.

        With `terminal`, a name, go on with the terminal that was opened with this name and not closed, if there is one.
        Its output begins where the caller's ended (`after`), as far as it is still stored; a new terminal's at 0.
        """

    async def exports(self) -> Exports:
        """Open the connection that receives the OTLP exports of the container's apps, instead of any earlier one.

        Raises GuestError `agent_refused` if the guest agent is of an older image that accepts no exports.
        """

    def interrupt(self, error: GuestError) -> None:
        """Let every request that waits for its answer raise this error, because no answer will come."""

    async def aclose(self) -> None:
        """Close the connections to the guest agent. Its processes go on."""
