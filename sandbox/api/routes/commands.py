"""Running a command in a sandbox; the response is its result or a stream of events."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator
from itertools import count
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import APIRouter, Header, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.services import Injected
from sandbox.api.http.streams import event_stream
from sandbox.domain.redaction import Redactor, StreamRedactor
from sandbox.domain.variables import Environment
from sandbox.engine.guest import Guest
from sandbox.engine.guest_data import Stream
from sandbox.errors import GuestError, SandboxError
from sandbox.events.sse import encode_event

router = APIRouter(prefix="/api/v1/sessions", tags=["exec"])

Argument = Annotated[str, StringConstraints(max_length=100_000)]


class Command(BaseModel):
    """A command to run in a sandbox. A string is run by a shell, a list without one."""

    model_config = ConfigDict(extra="forbid")

    command: Argument | Annotated[list[Argument], Field(min_length=1, max_length=1000)]
    role: str | None = Field(None, max_length=31, description="The role whose container is used; default the first")
    cwd: str | None = Field(None, max_length=4096, description="Working directory; default /workspace")
    env: Environment = Field(default_factory=dict, max_length=200)
    timeout_seconds: float | None = Field(
        None, gt=0, le=86_400, description="The command is killed after this time; default 60"
    )
    stdin: str | None = Field(None, max_length=1_000_000)

    @field_validator("command")
    @classmethod
    def _no_nul(cls, value: str | list[str]) -> str | list[str]:
        if any("\0" in part for part in ([value] if isinstance(value, str) else value)):
            raise ValueError("a command cannot have a NUL")
        if not value or value == [""]:
            raise ValueError("the command is empty")
        return value


class CommandResult(BaseModel):
    exit_code: int
    stdout: str
    stderr: str
    duration_ms: int
    timed_out: bool
    truncated: bool = Field(description="The output was longer than 1 MiB per stream, which is the limit")


DEFAULT_TIMEOUT = 60.0
#: Output that is searched for secrets at once, which takes less time than handing it to a thread.
SHORT_OUTPUT = 4096


@router.post("/{session_id}/exec", response_model=CommandResult)
async def exec_command(
    session_id: UUID,
    body: Command,
    caller: CurrentCaller,
    services: Injected,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Run a command. With `Accept: text/event-stream`: events `start`, `stdout`, `stderr` as they come, then `exit`.

    At the timeout the command is killed with everything that it has started, daemons included, except programs that
    have cleared their environment. What a command that ends by itself leaves in the background runs on.

    The session's secrets are replaced by `[secret NAME]` in the output.
    """
    guest, env, hide = await services.sessions.commands(caller, session_id, body.role)
    env = {**env, **body.env}
    if "text/event-stream" in accept:
        return event_stream(_stream(guest, body, env, hide))
    result = await guest.exec(
        body.command,
        cwd=body.cwd,
        env=env,
        stdin=body.stdin.encode() if body.stdin is not None else None,
        timeout_seconds=body.timeout_seconds or DEFAULT_TIMEOUT,
    )
    return JSONResponse(
        {
            "exit_code": result.exit_code,
            "stdout": await _hidden(hide, result.stdout),
            "stderr": await _hidden(hide, result.stderr),
            "duration_ms": result.duration_ms,
            "timed_out": result.timed_out,
            "truncated": result.truncated,
        }
    )


async def _hidden(hide: Redactor, output: bytes) -> str:
    """The output without the session's secrets. Much of it is searched in a thread: up to 2 MiB for each value."""
    text = output.decode("utf-8", "replace")
    return hide.text(text) if len(text) < SHORT_OUTPUT else await asyncio.to_thread(hide.text, text)


async def _stream(guest: Guest, body: Command, env: dict[str, str], hide: Redactor) -> AsyncIterator[bytes]:
    """The command as server-sent events with a rising seq. The last one is always `exit`.

    When the client disconnects, the command is killed.
    """
    name = f"exec-{uuid4().hex}"
    writing: asyncio.Task[None] | None = None
    seq = count(1)
    try:
        started = await guest.start(name, body.command, cwd=body.cwd, env=env, paced=True)
        yield _event(next(seq), "start", {"pid": started.pid})
        writing = asyncio.create_task(_write_stdin(guest, name, (body.stdin or "").encode()))
        decoders = {stream: getincrementaldecoder("utf-8")("replace") for stream in Stream}
        hidden = {stream: StreamRedactor(hide) for stream in Stream}
        timed_out = False
        try:
            async with asyncio.timeout(body.timeout_seconds or DEFAULT_TIMEOUT):
                async for chunk in guest.output(name):
                    text = hidden[chunk.stream].text(decoders[chunk.stream].decode(chunk.data))
                    yield _event(next(seq), chunk.stream.value, {"data": text})
        except TimeoutError:
            timed_out = True
            await guest.signal(name, signal.SIGKILL)
        for stream in Stream:
            if rest := hidden[stream].text(decoders[stream].decode(b"", final=True), end=True):
                yield _event(next(seq), stream.value, {"data": rest})
        ended = await guest.wait(name)
        yield _event(next(seq), "exit", {"exit_code": ended.exit_code, "timed_out": timed_out})
    except SandboxError as error:
        data = {"exit_code": None, "timed_out": False, "code": error.code, "message": error.message}
        yield _event(next(seq), "exit", data)
    finally:
        if writing is not None:
            writing.cancel()
        await asyncio.shield(_forget(guest, name))


async def _write_stdin(guest: Guest, name: str, data: bytes) -> None:
    """Write the command's input while its output is read: it may print much before it reads, or not read at all."""
    with contextlib.suppress(GuestError):
        await guest.write_stdin(name, data, close=True)


async def _forget(guest: Guest, name: str) -> None:
    """Kill the process if it still runs, and let the guest agent drop it with its output."""
    with contextlib.suppress(GuestError):
        await guest.forget(name)


def _event(seq: int, kind: str, data: dict[str, Any]) -> bytes:
    return encode_event(kind, {"seq": seq, **data}, event_id=seq)
