"""`FakeGuest`: the guest agent's contract in memory.

guest = engine.guest(session_id, "main")
guest.script("install", Script(b"installed\n"))           # a named process `install` or `install-…`
guest.script("app", app(8000))
guest.script("cat", Script(b"text"))                      # a command of `exec`
guest.unreachable(times=2)
guest.fail("put_tar", guest_error("file_refused", "no"))
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from sandbox.engine.guest_data import (
    Changes,
    ExecResult,
    FileInfo,
    GuestStats,
    OutputChunk,
    PortSocket,
    ProcessInfo,
    RunningProcess,
    Stream,
    UsageSample,
)
from sandbox.errors import GuestError
from tests.fakes.errors import ScriptedFailures, guest_error, guest_unreachable
from tests.fakes.exports import ExportQueue, FakeExports
from tests.fakes.files import FakeFiles, collect, in_pieces
from tests.fakes.processes import Connections, FakeProcess, Script
from tests.fakes.terminal import FakePty


class Container(Protocol):
    """What a guest agent needs of its running container."""

    files: FakeFiles
    processes: dict[str, FakeProcess]
    exports: ExportQueue
    #: What `set_variables` has set.
    variables: dict[str, str]

    def stop(self, exit_code: int) -> None: ...


class FakeGuest:
    """The guest agent of one role of one session, whichever container that is at the moment.

    Scripts and failures survive the container. Not thread-safe; belongs to one event loop.
    """

    def __init__(self, container: Callable[[], Container | None], on_call: Callable[[str], None]) -> None:
        """`container` answers the running container, None if there is none; `on_call` is called before each call."""
        self._container = container
        self._on_call = on_call
        self._scripts: dict[str, Script] = {"true": Script()}
        self._failures = ScriptedFailures()
        self._unreachable = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._connections = Connections()
        #: The names of all processes that were really started, in order.
        self.started: list[str] = []
        #: The environment with which each was started last.
        self.environments: dict[str, dict[str, str]] = {}
        #: What `forward_ports` was asked for last, and what it refuses by port.
        self.forwarded: tuple[dict[int, str], int | None] = ({}, None)
        self.planned_port: int | None = None
        self.refused_ports: dict[int, str] = {}
        self._port_sockets: dict[str, int] = {}
        #: Terminals that outlive their connections, by name.
        self._terminals: dict[str, FakeProcess] = {}
        self.figures = GuestStats(1.0, 1 << 20, 256 << 20, 3, 1 << 20, 1 << 30, 0, 0)

    # What tests script.

    def script(self, key: str, script: Script) -> None:
        """Run this for the named processes `key` and `key-…`, and for the command `key`."""
        self._scripts[key] = script

    def fail(self, call: str, error: GuestError, times: int = 1) -> None:
        """Have the next calls of this method raise the error."""
        self._failures.add(call, error, times)

    def unreachable(self, times: int) -> None:
        """Have the next calls, of any method, raise `agent_unreachable`."""
        self._unreachable = times

    def running_process(self, key: str) -> FakeProcess:
        """The process `key` or `key-…` that runs; fails if it is not exactly one."""
        (found,) = (p for p in self._here().processes.values() if p.running and _named(p.name, key))
        return found

    def files(self) -> FakeFiles:
        return self._here().files

    def exported(self) -> ExportQueue:
        """The queue into which the container's apps export their telemetry."""
        return self._here().exports

    # The contract.

    async def wait_ready(self, timeout_seconds: float) -> None:
        await self._enter("wait_ready")

    async def set_variables(self, variables: Mapping[str, str]) -> None:
        (await self._enter("set_variables")).variables = dict(variables)

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
        await self._enter("exec")
        process = self._new_process("exec", command, env)
        with contextlib.suppress(GuestError):
            process.write_stdin(stdin or b"", close=True)
        timed_out = False
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._unless_interrupted(process.wait())
        except TimeoutError:
            timed_out = True
        finally:
            process.kill()
        stdout = process.printed(Stream.STDOUT)[:max_output_bytes]
        stderr = process.printed(Stream.STDERR)[: max_output_bytes - len(stdout)]
        info = process.info
        return ExecResult(
            exit_code=info.exit_code or 0,
            stdout=stdout,
            stderr=stderr,
            duration_ms=round(((info.ended_at or 0) - info.started_at) * 1000),
            timed_out=timed_out,
            truncated=info.output_end > max_output_bytes,
            signal=info.signal,
            out_of_memory=info.out_of_memory,
        )

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
        processes = (await self._enter("start")).processes
        present = processes.get(name)
        if present is None or (restart_finished and not present.running):
            present = processes[name] = self._new_process(name, command, env)
            self.started.append(name)
            self.environments[name] = dict(env or {})
        return present.info

    async def process(self, name: str) -> ProcessInfo | None:
        processes = (await self._enter("process")).processes
        return processes[name].info if name in processes else None

    async def processes(self) -> list[ProcessInfo]:
        return [process.info for process in (await self._enter("processes")).processes.values()]

    async def output(self, name: str, *, offset: int = 0, follow: bool = True) -> AsyncIterator[OutputChunk]:
        process = await self._named_process("output", name)
        async for chunk in process.output(offset, follow=follow):
            yield chunk
            self._here()

    async def wait(self, name: str) -> ProcessInfo:
        process = await self._named_process("wait", name)
        await process.wait()
        # A container that ended takes its processes with it, and the guest agent that would tell of them.
        self._here()
        return process.info

    async def signal(self, name: str, signal: int) -> None:
        (await self._named_process("signal", name)).kill(signal)

    async def kill_all(self) -> int:
        running = [one for one in (await self._enter("kill_all")).processes.values() if one.info.running]
        for process in running:
            process.kill()
        return len(running)

    async def stop(self) -> None:
        (await self._enter("stop")).stop(0)

    async def running_processes(self) -> list[RunningProcess]:
        running = [one.info for one in (await self._enter("running_processes")).processes.values() if one.running]
        return [RunningProcess(it.pid, 1, it.command, 0.0, 1 << 20, it.started_at) for it in running]

    async def signal_process(self, pid: int, signal: int) -> None:
        for process in (await self._enter("signal_process")).processes.values():
            if process.running and process.pid == pid:
                process.kill(signal)
                return
        raise guest_error("process_not_found", f"the sandbox has no process {pid}")

    async def forget(self, name: str) -> None:
        process = (await self._enter("forget")).processes.pop(name, None)
        if process is not None:
            process.kill()

    async def write_stdin(self, name: str, data: bytes, *, close: bool = False) -> None:
        (await self._named_process("write_stdin", name)).write_stdin(data, close=close)

    async def read_file(self, path: str) -> AsyncIterator[bytes]:
        return in_pieces((await self._enter("read_file")).files.read(path))

    async def write_file(self, path: str, data: AsyncIterator[bytes] | bytes, *, mode: int | None = None) -> FileInfo:
        return (await self._enter("write_file")).files.write(path, await collect(data), mode)

    async def stat(self, path: str) -> FileInfo | None:
        return (await self._enter("stat")).files.stat(path)

    async def list_files(self, path: str, *, depth: int = 1, after: str = "") -> list[FileInfo]:
        found = (await self._enter("list_files")).files.list(path, depth)
        passed = [info for info in found if after and info.path.endswith(f"/{after}")]
        return found[found.index(passed[0]) + 1 :] if passed else found

    async def make_directory(self, path: str) -> None:
        (await self._enter("make_directory")).files.make_directory(path)

    async def move(self, source: str, target: str) -> None:
        (await self._enter("move")).files.move(source, target)

    async def remove(self, path: str) -> bool:
        return (await self._enter("remove")).files.remove(path)

    async def watch(self, path: str) -> AsyncIterator[dict[str, Any]]:
        async for change in (await self._enter("watch")).files.watch(path):
            yield change

    async def put_tar(self, path: str, data: AsyncIterator[bytes] | bytes) -> None:
        (await self._enter("put_tar")).files.put_tar(path, await collect(data))

    async def get_tar(self, path: str, *, exclude: Collection[str] = ()) -> AsyncIterator[bytes]:
        return in_pieces((await self._enter("get_tar")).files.get_tar(path, exclude))

    async def changes(
        self, folders: Sequence[str], *, since: str | None = None, excluded: Sequence[str] = ()
    ) -> Changes:
        return (await self._enter("changes")).files.changes(folders, since, excluded)

    async def pack_changes(
        self, folders: Sequence[str], *, since: str | None = None, excluded: Sequence[str] = ()
    ) -> AsyncIterator[bytes]:
        packed = (await self._enter("pack_changes")).files.pack_changes(folders, since, excluded)
        async for piece in in_pieces(packed):
            yield piece

    async def unpack_changes(self, data: AsyncIterator[bytes]) -> None:
        (await self._enter("unpack_changes")).files.put_tar("/", await collect(data))

    async def stats(self) -> GuestStats:
        processes = (await self._enter("stats")).processes.values()
        return replace(self.figures, pids=self.figures.pids + sum(process.running for process in processes))

    async def stats_history(self) -> list[UsageSample]:
        await self._enter("stats_history")
        now = self.figures
        network = (now.network_received_bytes, now.network_sent_bytes)
        return [UsageSample(0.0, now.cpu_seconds, now.memory_bytes, now.disk_used_bytes, *network)]

    async def listening_ports(self) -> list[int]:
        processes = (await self._enter("listening_ports")).processes.values()
        return sorted({port for process in processes for port in process.ports})

    async def tunnel(self, port: int) -> socket.socket:
        container = await self._enter("tunnel")
        if not 0 < port < 65_536:
            raise guest_error("agent_refused", f"{port} is not a port")
        for process in container.processes.values():
            if port in process.ports:
                return self._connections.open(process.ports[port])
        raise guest_error("port_not_open", f"nothing listens on port {port}")

    async def forward_ports(
        self, ports: dict[int, str], *, own: int | None = None, planned: int | None = None
    ) -> dict[int, str]:
        await self._enter("forward_ports")
        self.forwarded, self.planned_port = (dict(ports), own), planned
        return {port: why for port, why in self.refused_ports.items() if port in ports or port == own}

    async def port_sockets(
        self, *, opened: Mapping[str, int] | None = None, closed: Sequence[str] = ()
    ) -> dict[str, PortSocket]:
        """Names and ports only: there are no sockets to connect to."""
        container = await self._enter("port_sockets")
        for name in closed:
            self._port_sockets.pop(name, None)
        listening = {port for process in container.processes.values() for port in process.ports}
        self._port_sockets |= {name: port for name, port in (opened or {}).items() if port in listening}
        return {name: PortSocket(port, 0, 0.0) for name, port in self._port_sockets.items()}

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
    ) -> FakePty:
        await self._enter("pty")
        kept = self._terminals.get(terminal or "")
        if kept is not None and kept.running:
            return FakePty(kept, columns, rows, after=after, is_kept=True)
        process = self._new_process("terminal", "login shell" if command is None else command, env)
        opened = FakePty(process, columns, rows, is_kept=terminal is not None)
        if terminal is not None:
            self._terminals[terminal] = process
        return opened

    async def exports(self) -> FakeExports:
        return (await self._enter("exports")).exports.connect()

    def interrupt(self, error: GuestError) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(error)

    async def aclose(self) -> None:
        await self._connections.close()

    async def _unless_interrupted(self, answer: Coroutine[Any, Any, object]) -> None:
        """Wait for an answer; raises the error of `interrupt` if that comes first."""
        interruption: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(answer)
        self._waiting.add(interruption)
        try:
            await asyncio.wait({waiting, interruption}, return_when=asyncio.FIRST_COMPLETED)
            if interruption.done():
                interruption.result()
        finally:
            self._waiting.discard(interruption)
            interruption.cancel()
            waiting.cancel()

    async def _enter(self, call: str) -> Container:
        self._on_call(call)
        await asyncio.sleep(0)
        if self._unreachable:
            self._unreachable -= 1
            raise guest_unreachable("scripted")
        self._failures.raise_next(call)
        return self._here()

    def _here(self) -> Container:
        container = self._container()
        if container is None:
            raise guest_unreachable("its container does not run")
        return container

    async def _named_process(self, call: str, name: str) -> FakeProcess:
        processes = (await self._enter(call)).processes
        if name not in processes:
            raise guest_error("process_not_found", f"no process is named {name}")
        return processes[name]

    def _new_process(self, name: str, command: str | list[str], env: dict[str, str] | None) -> FakeProcess:
        """A process of the script for its name or command. Without a script there is no such program."""
        words = command if isinstance(command, str) else " ".join(command)
        script = self._scripts.get(words) or next(
            (script for key, script in self._scripts.items() if _named(name, key)), None
        )
        if script is None and not isinstance(command, str):
            raise guest_error("command_not_found", f"{words}: no such program")
        missing = Script(errors=f"sh: {words}: not found\n".encode(), exit_code=127)
        return FakeProcess(name, command, script or missing, dict(env or {}))


def _named(name: str, key: str) -> bool:
    return name == key or name.startswith(f"{key}-")
