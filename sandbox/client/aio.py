"""The asynchronous SDK. `sync.py` has the synchronous one."""

from __future__ import annotations

import asyncio
import builtins
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import anyio

from sandbox.client import packing
from sandbox.client.commands import AsyncCommands
from sandbox.client.config import ClientConfig, resolve
from sandbox.client.errors import LaunchFailed, SandboxError
from sandbox.client.files import AsyncFiles
from sandbox.client.models import LaunchEvent, LogLine, ProcessEntry, ProjectInfo, SessionInfo
from sandbox.client.terminal import Terminal, open_terminal
from sandbox.client.transport import Transport, event_data
from sandbox.domain.events import EventType
from sandbox.domain.session import SessionStatus

_LOG_TAIL = 30
_API = "/api/v1"


class AsyncSandbox:
    """One session of the service. Returned by `create` and `connect`.

    Used as a context manager, it terminates the session at the end of the block. `info` is the state of the session
    when it was last read; `refresh` reads it again.
    """

    def __init__(self, transport: Transport, info: SessionInfo) -> None:
        self._transport = transport
        self.info = info
        self._path = f"{_API}/sessions/{info.session_id}"
        self.commands = AsyncCommands(transport, self._path)
        self.files = AsyncFiles(transport, self._path)

    @classmethod
    async def create(
        cls,
        project: str | Path | None = None,
        *,
        project_id: str | None = None,
        runtime: str | None = None,
        env: Mapping[str, str | dict[str, str]] | None = None,
        egress: str | list[str] | None = None,
        idle_timeout_seconds: int | None = None,
        max_lifetime_seconds: int | None = None,
        pipeline_run_id: str | None = None,
        agents: list[str] | None = None,
        plan: dict[str, dict[str, Any] | None] | None = None,
        lessons: bool = True,
        memory_mb: int | None = None,
        wait: bool = True,
        on_event: Callable[[LaunchEvent], None] | None = None,
        base_url: str | None = None,
        token: str | None = None,
        config: ClientConfig | None = None,
    ) -> Self:
        """Create a session and launch a project in it.

        Args:
            project: Folder or archive to upload. Without it, a project that was uploaded earlier as `project_id` is
                launched. Without both, the session is blank.
            runtime: Runtime of a blank session, `python312` by default.
            env: Environment variables of everything that runs in the session. `{"from_secret": NAME}` is the value of a
                stored secret.
            egress: What the session may connect to: `all` (the default: neither the host nor private networks), `none`,
                or a list of host names and IPv4 networks.
            plan: Roles that replace those of the project's plan, with the keys of a table of `sandbox.toml`. A role
                that is None is left out.
            lessons: Whether lessons of earlier failures may change the plan of the session's launches.
            memory_mb: Memory of each container in MiB, by default the service's.
            wait: Whether to wait until the session is running (a blank one: ready). Otherwise return as soon as the
                service has accepted the request.
            on_event: Called with each event of the launch while waiting.

        Raises:
            LaunchFailed: The launch failed. The session is not terminated, so that its state can be examined.
        """
        transport = Transport(config or resolve(base_url, token))
        try:
            if project is not None:
                project_id = (await _upload(transport, Path(project), project_id)).project_id
            fields = {
                "project_id": project_id,
                "runtime_type": runtime,
                "env": env,
                "network": None if egress is None else {"egress": egress},
                "idle_timeout_seconds": idle_timeout_seconds,
                "max_lifetime_seconds": max_lifetime_seconds,
                "pipeline_run_id": pipeline_run_id,
                "agents": agents,
                "plan": plan,
                # A service of the previous release does not know the field.
                "lessons": None if lessons else False,
                "memory_mb": memory_mb,
            }
            data = await transport.json(
                "POST",
                f"{_API}/sessions",
                body={name: value for name, value in fields.items() if value is not None},
                headers={"Idempotency-Key": str(uuid.uuid4())},
                repeatable=True,
            )
            sandbox = cls(transport, SessionInfo.from_json(data))
            if wait:
                await sandbox.wait(on_event=on_event)
        except BaseException:
            await transport.aclose()
            raise
        return sandbox

    @classmethod
    async def connect(
        cls,
        session_id: str,
        *,
        base_url: str | None = None,
        token: str | None = None,
        config: ClientConfig | None = None,
    ) -> Self:
        """Return an existing session. Raises NotFoundError."""
        transport = Transport(config or resolve(base_url, token))
        try:
            data = await transport.json("GET", f"{_API}/sessions/{session_id}")
        except BaseException:
            await transport.aclose()
            raise
        return cls(transport, SessionInfo.from_json(data))

    @staticmethod
    async def list(
        *,
        status: str | None = None,
        project_id: str | None = None,
        user_id: str | None = None,
        limit: int | None = None,
        base_url: str | None = None,
        token: str | None = None,
        config: ClientConfig | None = None,
    ) -> list[SessionInfo]:
        """Return the caller's sessions (for an admin: all), newest first, at most `limit` of them."""
        transport = Transport(config or resolve(base_url, token))
        params = {"status": status, "project_id": project_id, "user_id": user_id}
        try:
            return [SessionInfo.from_json(i) async for i in pages(transport, f"{_API}/sessions", params, limit)]
        finally:
            await transport.aclose()

    @staticmethod
    async def upload(
        project: str | Path,
        *,
        project_id: str | None = None,
        base_url: str | None = None,
        token: str | None = None,
        config: ClientConfig | None = None,
    ) -> ProjectInfo:
        """Upload a folder or archive without launching it. By default the `project_id` is derived from its path."""
        transport = Transport(config or resolve(base_url, token))
        try:
            return await _upload(transport, Path(project), project_id)
        finally:
            await transport.aclose()

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self.info.session_id

    @property
    def preview_url(self) -> str | None:
        """A signed link to the app, or None if there is no preview. It expires; `refresh` reads a new one."""
        return self.info.preview_url

    def get_host(self, port: int) -> str:
        """Return the host and port of the preview of a port of the session's containers."""
        service = urlsplit(self._transport.config.base_url)
        port_suffix = f":{service.port}" if service.port else ""
        return f"{port}-{self.session_id}.{self._transport.config.preview_domain}{port_suffix}"

    async def refresh(self) -> SessionInfo:
        """Read the session again and return its state."""
        self.info = SessionInfo.from_json(await self._transport.json("GET", self._path))
        return self.info

    async def events(self, *, after: int = 0) -> AsyncGenerator[LaunchEvent]:
        """Yield the events of the session's launches that follow the event `after`, until the last launch is over.

        If the connection breaks or the service restarts, the stream resumes without a gap or a duplicate. Raises
        ConnectionFailed if the service is unavailable for a minute.
        """
        last_seq = after
        stream = self._transport.follow(f"{self._path}/events", after=str(after) if after else None)
        async with aclosing(stream):
            async for event in stream:
                launch_event = LaunchEvent.from_json(event.event, event_data(event))
                if launch_event.seq > last_seq:
                    last_seq = launch_event.seq
                    yield launch_event

    async def wait(self, *, on_event: Callable[[LaunchEvent], None] | None = None, after: int = 0) -> SessionInfo:
        """Wait until the launch is over, and return the session, which is then running (a blank one: ready).

        `on_event` is called with each event after the event `after`. Raises LaunchFailed.
        """
        tail: dict[str, list[str]] = {}
        events = self.events(after=after)
        async with aclosing(events):
            async for event in events:
                if event.type is EventType.LOG:
                    lines = tail.setdefault(str(event.data.get("stage")), [])
                    lines.append(str(event.data.get("line", "")))
                    del lines[:-_LOG_TAIL]
                if on_event is not None:
                    on_event(event)
                if event.type is EventType.END and (await self.refresh()).status is not SessionStatus.CREATING:
                    break
        await self.refresh()
        if self.info.status in (SessionStatus.READY, SessionStatus.RUNNING):
            return self.info
        if self.info.status is SessionStatus.TERMINATED:
            raise LaunchFailed(self.session_id, "session_terminated", "The session was terminated.")
        error = self.info.error or {}
        raise LaunchFailed(
            self.session_id,
            str(error.get("code") or "launch_failed"),
            str(error.get("message") or f"The session is {self.info.status} and its launch is over."),
            hint=str(error.get("hint") or ""),
            stage=error.get("stage"),
            log_tail=tail.get(str(error.get("stage"))),
        )

    async def logs(self, role: str | None = None, *, follow: bool = False) -> AsyncGenerator[LogLine]:
        """Yield the output of the app, of one role or of all. With `follow`, continue until the app ends."""
        params = {"role": role, "follow": 1 if follow else None}
        stream = self._transport.follow(f"{self._path}/logs", params=params)
        async with aclosing(stream):
            async for event in stream:
                if event.event == EventType.END:
                    return
                yield LogLine.from_json(event_data(event))

    async def pipeline_log(self) -> str:
        """Return the log of all launches of the session, as text."""
        return (await self._transport.request("GET", f"{self._path}/pipeline-log")).text

    async def relaunch(
        self,
        *,
        memory_mb: int | None = None,
        wait: bool = True,
        on_event: Callable[[LaunchEvent], None] | None = None,
    ) -> SessionInfo:
        """Launch the project again in the same session, from now on with this memory of each container. For `wait` see
        `create`."""
        return await self._run_again("relaunch", wait, on_event, {"memory_mb": memory_mb} if memory_mb else None)

    async def recover(self, *, wait: bool = True, on_event: Callable[[LaunchEvent], None] | None = None) -> SessionInfo:
        """Recover a session that is in `error` or has lost its containers. For `wait` see `create`."""
        return await self._run_again("recover", wait, on_event)

    async def _run_again(
        self,
        verb: str,
        wait: bool,
        on_event: Callable[[LaunchEvent], None] | None,
        body: dict[str, Any] | None = None,
    ) -> SessionInfo:
        # The events of finished launches are skipped. During a launch, the service refuses the request, or has not yet
        # written the last event, so there is nothing to skip.
        finished = (await self.refresh()).status is not SessionStatus.CREATING
        after = await self._last_seq() if finished else 0
        await self._transport.json("POST", f"{self._path}/{verb}", body=body)
        return await self.wait(on_event=on_event, after=after) if wait else await self.refresh()

    async def _last_seq(self) -> int:
        """Return the seq of the last event of a session whose launches are finished."""
        last = 0
        stream = self._transport.follow(f"{self._path}/events")
        async with aclosing(stream):
            async for event in stream:
                last = int(event.id)
        return last

    async def set_timeout(self, seconds: int) -> SessionInfo:
        """Change the session's expiry to `seconds` from now."""
        await self._transport.json("POST", f"{self._path}/renew", body={"seconds": seconds}, repeatable=True)
        return await self.refresh()

    async def stats(self) -> dict[str, Any]:
        """Return the usage of cpu, memory, pids, disk and network, per role."""
        return await self._transport.json("GET", f"{self._path}/stats")

    async def processes(self, role: str | None = None) -> builtins.list[ProcessEntry]:
        """Return what runs in the containers of all roles, or in that of one."""
        answer = await self._transport.json("GET", f"{self._path}/processes", params={"role": role})
        return [ProcessEntry.from_json(item) for item in answer["items"]]

    async def signal(self, pid: int, signal: str = "TERM", *, role: str | None = None) -> None:
        """Send a signal (`TERM`, `KILL`, …) to a process of a role's container, by default the first role's."""
        path = f"{self._path}/processes/{pid}/signal"
        await self._transport.request("POST", path, params={"role": role}, body={"signal": signal})

    @asynccontextmanager
    async def terminal(self, role: str | None = None, *, columns: int = 80, rows: int = 24) -> AsyncIterator[Terminal]:
        """Open a shell in a container: `async with sandbox.terminal() as terminal`."""
        async with open_terminal(self._transport.config, self._path, role, columns, rows) as terminal:
            yield terminal

    async def kill(self) -> None:
        """Terminate the session and remove its containers, network and volumes.

        Does nothing if it is terminated already.
        """
        await self._transport.request("DELETE", self._path)

    async def aclose(self) -> None:
        """Close the connections to the service. The session is not terminated."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.kill()
        finally:
            await self.aclose()


async def pages(
    transport: Transport, path: str, params: dict[str, Any], limit: int | None = None
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the items of a paginated list, at most `limit` of them."""
    cursor, left = None, limit
    while left is None or left > 0:
        size = min(left or 500, 500)
        page = await transport.json("GET", path, params={**params, "limit": size, "cursor": cursor})
        for item in page["items"][:left]:
            yield item
        left = None if left is None else left - len(page["items"])
        cursor = page.get("next_cursor")
        if cursor is None:
            return


async def _upload(transport: Transport, project: Path, project_id: str | None) -> ProjectInfo:
    packed = await asyncio.to_thread(packing.pack, project)
    try:
        name = project_id or packing.default_project_id(project)

        async def content() -> AsyncIterator[bytes]:
            async with await anyio.open_file(packed.path, "rb") as archive:
                while chunk := await archive.read(256 * 1024):
                    yield chunk

        data = await transport.json(
            "PUT",
            f"{_API}/projects/{name}",
            content=content,
            headers={"Content-Type": packed.content_type, "Content-Length": str(packed.size_bytes)},
            timeout=300.0,
        )
    finally:
        packed.remove()
    if "project_id" not in data:
        raise SandboxError("The answer to the upload has no project_id", code="unexpected_answer")
    return ProjectInfo.from_json(data)
