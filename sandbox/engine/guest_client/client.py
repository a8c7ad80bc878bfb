"""The client of the guest agent in one container. A `Connector` of `http.py` connects to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from sandbox.engine.guest_client.errors import ANSWER_BYTES, answer_too_large, guest_error, unreachable
from sandbox.engine.guest_client.exports import ExportsConnection
from sandbox.engine.guest_client.http import Connector, GuestHttp
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

_OUTPUT_FRAME = struct.Struct(">BQI")
_STREAMS = (Stream.STDOUT, Stream.STDERR)
#: In place of the stream in a frame: the frame holds the time, in milliseconds, of the chunks after it.
_TIME = 2
_PTY_FRAME = struct.Struct(">BI")
_PTY_DATA, _PTY_RESIZE, _PTY_ENDED, _PTY_HANG_UP, _PTY_TAKEN = range(5)
#: The header that says where the output of a terminal begins that is sent.
_PTY_POSITION = "sandbox-terminal-position"
_PTY_PIECE = 64 * 1024
#: On a stream the guest agent sends a heartbeat every 10 seconds.
_STREAM_SILENCE_SECONDS = 40.0
#: How long closing a terminal waits for the guest agent. After that the connection is closed, which hangs up as well
#: unless the terminal has a name.
_PTY_CLOSE_SECONDS = 2.0
#: How long one request waits for the end of a process, before the next request is made.
_WAIT_SECONDS = 30.0
#: How long the answer may take after the command's own timeout.
_EXEC_MARGIN_SECONDS = 30.0
#: While a large folder is packed, unpacked or removed, nothing is received.
_LONG_SECONDS = 900.0


class GuestClient:
    """Implements `base.Guest`. The first call makes the first connection.

    Any number of tasks may use it at once; not thread-safe.
    """

    def __init__(self, connector: Connector) -> None:
        self._http = GuestHttp(connector)

    async def wait_ready(self, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        pause = 0.005
        while True:
            try:
                await self._http.call("ping", silence_seconds=max(1.0, timeout_seconds))
            except GuestError as error:
                if error.code != "agent_unreachable" or time.monotonic() + pause > deadline:
                    raise
            else:
                return
            await asyncio.sleep(pause)
            pause = min(0.05, pause * 1.5)

    async def set_variables(self, variables: Mapping[str, str]) -> None:
        await self._http.call("set_variables", {"variables": dict(variables)})

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
        args = {"command": command, "cwd": cwd, "env": env, "timeout": timeout_seconds, "max_output": max_output_bytes}
        silence = None if timeout_seconds is None else timeout_seconds + _EXEC_MARGIN_SECONDS
        answer, raw = await self._http.call("exec", args, raw=stdin or b"", silence_seconds=silence)
        stdout_length = answer.pop("stdout")
        return ExecResult(**answer, stdout=raw[:stdout_length], stderr=raw[stdout_length:])

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
        args = {"name": name, "command": command, "cwd": cwd, "env": env}
        answer, _ = await self._http.call("start", {**args, "restart_finished": restart_finished, "paced": paced})
        return ProcessInfo(**answer)

    async def process(self, name: str) -> ProcessInfo | None:
        answer, _ = await self._http.call("process", {"name": name})
        return ProcessInfo(**answer["process"]) if answer["process"] else None

    async def processes(self) -> list[ProcessInfo]:
        answer, _ = await self._http.call("processes")
        return [ProcessInfo(**process) for process in answer["processes"]]

    async def output(self, name: str, *, offset: int = 0, follow: bool = True) -> AsyncIterator[OutputChunk]:
        args = {"name": name, "offset": offset, "follow": follow}
        with contextlib.closing(
            await self._http.open("output", args, silence_seconds=_STREAM_SILENCE_SECONDS)
        ) as response:
            buffer, frames = bytearray(), _OutputFrames()
            async for part in response:
                buffer += part
                for chunk in frames.pop(buffer):
                    yield chunk
                if len(buffer) > ANSWER_BYTES:
                    raise answer_too_large()

    async def wait(self, name: str) -> ProcessInfo:
        while True:
            args = {"name": name, "seconds": _WAIT_SECONDS}
            answer, _ = await self._http.call("wait", args, silence_seconds=_WAIT_SECONDS + _EXEC_MARGIN_SECONDS)
            if not answer["running"]:
                return ProcessInfo(**answer)

    async def signal(self, name: str, signal: int) -> None:
        await self._http.call("signal", {"name": name, "signal": signal})

    async def kill_all(self) -> int:
        answer, _ = await self._http.call("kill_all")
        return int(answer["killed"])

    async def stop(self) -> None:
        await self._http.call("stop")

    async def running_processes(self) -> list[RunningProcess]:
        answer, _ = await self._http.call("ps")
        return [RunningProcess(**process) for process in answer["processes"]]

    async def signal_process(self, pid: int, signal: int) -> None:
        await self._http.call("kill", {"pid": pid, "signal": signal})

    async def forget(self, name: str) -> None:
        await self._http.call("forget", {"name": name})

    async def write_stdin(self, name: str, data: bytes, *, close: bool = False) -> None:
        await self._http.call("stdin", {"name": name, "close": close}, raw=data)

    async def read_file(self, path: str) -> AsyncIterator[bytes]:
        return await self._http.open("read", {"path": path})

    async def write_file(self, path: str, data: AsyncIterator[bytes] | bytes, *, mode: int | None = None) -> FileInfo:
        answer, _ = await self._http.call("write", {"path": path, "mode": mode}, raw=data)
        return FileInfo(**answer)

    async def stat(self, path: str) -> FileInfo | None:
        answer, _ = await self._http.call("stat", {"path": path})
        return FileInfo(**answer["info"]) if answer["info"] else None

    async def list_files(self, path: str, *, depth: int = 1, after: str = "") -> list[FileInfo]:
        answer, _ = await self._http.call("list", {"path": path, "depth": depth, "after": after})
        if after and not answer.get("paged"):
            return []  # a guest agent of an earlier release, which has sent all entries as the first page
        return [FileInfo(**info) for info in answer["files"]]

    async def make_directory(self, path: str) -> None:
        await self._http.call("mkdir", {"path": path})

    async def move(self, source: str, target: str) -> None:
        await self._http.call("move", {"source": source, "target": target})

    async def remove(self, path: str) -> bool:
        answer, _ = await self._http.call("remove", {"path": path}, silence_seconds=_LONG_SECONDS)
        return bool(answer["removed"])

    async def watch(self, path: str) -> AsyncIterator[dict[str, Any]]:
        with contextlib.closing(
            await self._http.open("watch", {"path": path}, silence_seconds=_STREAM_SILENCE_SECONDS)
        ) as response:
            rest = b""
            async for part in response:
                *lines, rest = (rest + part).split(b"\n")
                if len(rest) > ANSWER_BYTES:
                    raise answer_too_large()
                for line in lines:
                    if line:
                        yield json.loads(line)

    async def put_tar(self, path: str, data: AsyncIterator[bytes] | bytes) -> None:
        await self._http.call("put_tar", {"path": path}, raw=data, silence_seconds=_LONG_SECONDS)

    async def get_tar(self, path: str, *, exclude: Collection[str] = ()) -> AsyncIterator[bytes]:
        args = {"path": path, "exclude": sorted(exclude)}
        return await self._http.open("get_tar", args, silence_seconds=_LONG_SECONDS)

    async def changes(
        self, folders: Sequence[str], *, since: str | None = None, excluded: Sequence[str] = ()
    ) -> Changes:
        args = {"folders": list(folders), "since": since, "excluded": list(excluded)}
        answer, _ = await self._http.call("changes", args, silence_seconds=_LONG_SECONDS)
        return Changes(answer["files"], answer["bytes"], tuple(answer["folders"]))

    async def pack_changes(
        self, folders: Sequence[str], *, since: str | None = None, excluded: Sequence[str] = ()
    ) -> AsyncIterator[bytes]:
        args = {"folders": list(folders), "since": since, "excluded": list(excluded)}
        with contextlib.closing(await self._http.open("pack_changes", args, silence_seconds=_LONG_SECONDS)) as response:
            async for part in response:
                yield part

    async def unpack_changes(self, data: AsyncIterator[bytes]) -> None:
        await self._http.call("unpack_changes", raw=data, silence_seconds=_LONG_SECONDS)

    async def stats(self) -> GuestStats:
        answer, _ = await self._http.call("stats")
        return GuestStats(**answer)

    async def stats_history(self) -> list[UsageSample]:
        answer, _ = await self._http.call("stats_history")
        return [UsageSample(**sample) for sample in answer["samples"]]

    async def listening_ports(self) -> list[int]:
        answer, _ = await self._http.call("ports")
        return list(answer["ports"])

    async def tunnel(self, port: int) -> socket.socket:
        sock, _ = await self._http.switch("CONNECT", f"127.0.0.1:{port}")
        return sock

    async def forward_ports(
        self, ports: dict[int, str], *, own: int | None = None, planned: int | None = None
    ) -> dict[int, str]:
        args = {"ports": {str(port): host for port, host in ports.items()}, "own": own, "planned": planned}
        # The name on the wire is that of earlier releases: their containers go on running.
        answer, _ = await self._http.call("neighbours", args)
        return {int(port): why for port, why in answer["refused"].items()}

    async def port_sockets(
        self, *, opened: Mapping[str, int] | None = None, closed: Sequence[str] = ()
    ) -> dict[str, PortSocket]:
        answer, _ = await self._http.call("port_sockets", {"open": dict(opened or {}), "close": list(closed)})
        return {name: PortSocket(**found) for name, found in answer["sockets"].items()}

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
    ) -> PtyStream:
        args: dict[str, Any] = {"columns": columns, "rows": rows, "cwd": cwd, "env": env}
        if command is not None:
            args["command"] = command
        if terminal is not None:
            args |= {"terminal": terminal, "after": after}
        sock, headers = await self._http.switch("POST", "/pty", args)
        # A guest agent of an earlier release keeps no terminals: this one is new.
        return PtyStream(sock, int(headers.get(_PTY_POSITION, "0")))

    async def exports(self) -> ExportsConnection:
        sock, _ = await self._http.switch("POST", "/exports", {})
        return ExportsConnection(sock)

    def interrupt(self, error: GuestError) -> None:
        self._http.interrupt(error)

    async def aclose(self) -> None:
        self._http.close()


class _OutputFrames:
    """The frames of one stream of output."""

    def __init__(self) -> None:
        self._time: float | None = None

    def pop(self, buffer: bytearray) -> list[OutputChunk]:
        """Remove the complete frames at the front of the buffer and return their chunks."""
        chunks = []
        position = 0
        while len(buffer) - position >= _OUTPUT_FRAME.size:
            stream, offset, length = _OUTPUT_FRAME.unpack_from(buffer, position)
            end = position + _OUTPUT_FRAME.size + length
            if len(buffer) < end:
                break
            if stream == _TIME:
                self._time = offset / 1000
            elif length:
                data = bytes(buffer[position + _OUTPUT_FRAME.size : end])
                chunks.append(OutputChunk(_STREAMS[stream], offset, data, self._time))
            position = end
        del buffer[:position]
        return chunks


class PtyStream:
    """Implements `base.PtySession` on a connection of its own. Not thread-safe."""

    def __init__(self, sock: socket.socket, position: int) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._writing = asyncio.Lock()
        self.position = position
        self.exit_code: int | None = None
        self.is_taken_over = False

    async def read(self) -> bytes:
        while self.exit_code is None and not self.is_taken_over:
            if (payload := self._pop_frame()) is not None:
                return payload
            try:
                data = await self._loop.sock_recv(self._sock, _PTY_PIECE)
            except OSError:
                return b""
            if not data:
                return b""
            self._buffer += data
            if (payload := self._pop_frame()) is not None:
                return payload
        return b""

    def _pop_frame(self) -> bytes | None:
        """The payload of the frame at the front; b"" if it reports the end, None if it is incomplete."""
        if len(self._buffer) < _PTY_FRAME.size:
            return None
        kind, length = _PTY_FRAME.unpack_from(self._buffer)
        end = _PTY_FRAME.size + length
        if length > ANSWER_BYTES:
            return b""  # as if the connection was lost: nothing after this can be understood
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[_PTY_FRAME.size : end])
        del self._buffer[:end]
        self.is_taken_over = kind == _PTY_TAKEN
        if kind == _PTY_ENDED:
            self.exit_code = int.from_bytes(payload, "big", signed=True)
            return b""
        return payload

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), _PTY_PIECE):
            await self._send(_PTY_DATA, data[start : start + _PTY_PIECE])

    async def resize(self, columns: int, rows: int) -> None:
        if not (0 < columns < 65_536 and 0 < rows < 65_536):
            raise guest_error("agent_refused", "a terminal has from 1 to 65,535 columns and rows")
        await self._send(_PTY_RESIZE, struct.pack(">HH", columns, rows))

    async def _send(self, kind: int, payload: bytes) -> None:
        async with self._writing:
            try:
                await self._loop.sock_sendall(self._sock, _PTY_FRAME.pack(kind, len(payload)) + payload)
            except OSError as error:
                raise unreachable(error.strerror or error) from error

    async def close(self) -> None:
        with contextlib.suppress(GuestError, OSError, TimeoutError):
            async with asyncio.timeout(_PTY_CLOSE_SECONDS):
                await self._send(_PTY_HANG_UP, b"")
                while await self._loop.sock_recv(self._sock, _PTY_PIECE):
                    pass
        self._sock.close()

    async def leave(self) -> None:
        self._sock.close()
