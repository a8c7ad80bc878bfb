"""Runs commands in a session's containers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import httpx
from httpx_sse import EventSource

from sandbox.client.errors import ConnectionFailed, SandboxError, StreamBroken
from sandbox.client.models import CommandResult
from sandbox.client.transport import Transport, event_data, raise_for_stream

Callback = Callable[[str], None]
#: Time for the response, in addition to the command's own timeout.
_GRACE_SECONDS = 30.0
#: Maximum length of each stream in a result. The service has the same limit.
_MAX_CHARACTERS = 1_048_576
#: The longest timeout that the service accepts.
LONGEST_SECONDS = 86_400.0


class AsyncCommands:
    """The commands of a session, as `sandbox.commands`."""

    def __init__(self, transport: Transport, session_path: str) -> None:
        self._transport = transport
        self._path = f"{session_path}/exec"

    async def run(
        self,
        cmd: str | list[str],
        *,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        timeout: float | None = 60.0,
        role: str | None = None,
        stdin: str | None = None,
        on_stdout: Callback | None = None,
        on_stderr: Callback | None = None,
    ) -> CommandResult:
        """Run a command and wait for its end. An exit code other than 0 raises no error.

        Args:
            cmd: A str is run by a shell, a list without one.
            timeout: Seconds after which the command is killed and `timed_out` is True. None means the longest possible,
                a day.
            role: The container, by default the session's first.
            on_stdout: Called with all output to stdout while it is printed.
            on_stderr: Called with all output to stderr while it is printed.

        Returns:
            The result. It contains the first MiB of each stream; `truncated` is True if there was more.

        Raises:
            StreamBroken: The connection broke before the command ended.
        """
        timeout = LONGEST_SECONDS if timeout is None else timeout
        fields = {"command": cmd, "cwd": cwd, "env": env, "timeout_seconds": timeout, "role": role, "stdin": stdin}
        body = {name: value for name, value in fields.items() if value is not None}
        if on_stdout is None and on_stderr is None:
            data = await self._transport.json("POST", self._path, body=body, timeout=timeout + _GRACE_SECONDS)
            return _result(data, data.get("stdout", ""), data.get("stderr", ""))
        printed = {"stdout": _Output(on_stdout), "stderr": _Output(on_stderr)}
        events = self._events(body)
        async with aclosing(events):
            async for kind, data in events:
                if kind in printed:
                    printed[kind].add(str(data.get("data", "")))
                elif kind == "exit" and data["exit_code"] is None:
                    message = str(data.get("message") or "The command did not run to its end")
                    raise SandboxError(message, code=data.get("code"))
                elif kind == "exit":
                    data["truncated"] = any(output.truncated for output in printed.values())
                    return _result(data, printed["stdout"].text, printed["stderr"].text)
        raise _broken()

    async def _events(self, body: dict[str, Any]) -> AsyncGenerator[tuple[str, dict[str, Any]]]:
        headers = {"Accept": "text/event-stream"}
        try:
            async with self._transport.stream("POST", self._path, json=body, headers=headers) as response:
                await raise_for_stream(response)
                async for event in EventSource(response).aiter_sse():
                    yield event.event, event_data(event)
        except httpx.ConnectError as error:
            raise ConnectionFailed(self._transport.config.base_url, str(error)) from error
        except httpx.TransportError as error:
            raise _broken() from error


class _Output:
    """One stream of a command. Passes all output to the callback and stores its beginning for the result."""

    def __init__(self, callback: Callback | None) -> None:
        self._callback = callback
        self._parts: list[str] = []
        self._remaining = _MAX_CHARACTERS
        self.truncated = False

    def add(self, text: str) -> None:
        stored = text[: self._remaining]
        self._parts.append(stored)
        self._remaining -= len(stored)
        self.truncated = self.truncated or len(stored) < len(text)
        if self._callback is not None:
            self._callback(text)

    @property
    def text(self) -> str:
        return "".join(self._parts)


def _broken() -> StreamBroken:
    return StreamBroken(
        "The connection ended before the command did.", hint="It may still be running. Check: sandbox exec ID -- ps"
    )


def _result(data: dict[str, Any], stdout: str, stderr: str) -> CommandResult:
    return CommandResult(
        exit_code=int(data["exit_code"]),
        stdout=stdout,
        stderr=stderr,
        duration_ms=data.get("duration_ms"),
        timed_out=bool(data.get("timed_out")),
        truncated=bool(data.get("truncated")),
    )
