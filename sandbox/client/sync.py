"""The synchronous SDK. Each method runs the asynchronous one in a background event loop."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Collection, Generator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self, overload

from sandbox.client.aio import AsyncSandbox
from sandbox.client.bridge import iterate, run
from sandbox.client.commands import AsyncCommands, Callback
from sandbox.client.config import ClientConfig
from sandbox.client.files import AsyncFiles
from sandbox.client.models import CommandResult, FileEntry, LaunchEvent, LogLine, ProcessEntry, ProjectInfo, SessionInfo


class Commands:
    """`sandbox.commands`. For what each method does see AsyncCommands."""

    def __init__(self, commands: AsyncCommands) -> None:
        self._async = commands

    def run(
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
        """Run a command; see AsyncCommands.run. The callbacks are called on the SDK's background thread."""
        return run(
            partial(
                self._async.run,
                cmd,
                cwd=cwd,
                env=env,
                timeout=timeout,
                role=role,
                stdin=stdin,
                on_stdout=on_stdout,
                on_stderr=on_stderr,
            )
        )


class Files:
    """`sandbox.files`. For what each method does see AsyncFiles."""

    def __init__(self, files: AsyncFiles) -> None:
        self._async = files

    @overload
    def read(self, path: str, *, role: str | None = None, format: Literal["text"] = "text") -> str: ...
    @overload
    def read(self, path: str, *, role: str | None = None, format: Literal["bytes"]) -> bytes: ...

    def read(
        self,
        path: str,
        *,
        role: str | None = None,
        format: Literal["text", "bytes"] = "text",  # noqa: A002 - similar SDKs use this name
    ) -> str | bytes:
        if format == "bytes":
            return run(lambda: self._async.read(path, role=role, format="bytes"))
        return run(lambda: self._async.read(path, role=role))

    def write(self, path: str, data: str | bytes, *, role: str | None = None) -> None:
        run(lambda: self._async.write(path, data, role=role))

    def write_files(self, files: Mapping[str, str | bytes], path: str = ".", *, role: str | None = None) -> None:
        run(lambda: self._async.write_files(files, path, role=role))

    def list(self, path: str = ".", *, role: str | None = None) -> list[FileEntry]:
        return run(lambda: self._async.list(path, role=role))

    def download(
        self, target: IO[bytes], path: str = ".", *, role: str | None = None, exclude: Collection[str] = ()
    ) -> int:
        return run(lambda: self._async.download(target, path, role=role, exclude=exclude))

    def remove(self, path: str, *, role: str | None = None) -> None:
        run(lambda: self._async.remove(path, role=role))


class Sandbox:
    """One session of the service, for code without an event loop. For what each method does see AsyncSandbox.

    Used as a context manager, it terminates the session at the end of the block. There is no synchronous `terminal`.
    """

    def __init__(self, sandbox: AsyncSandbox) -> None:
        self._async = sandbox
        self.commands = Commands(sandbox.commands)
        self.files = Files(sandbox.files)

    @classmethod
    def create(
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
        """Create a session; see AsyncSandbox.create. `on_event` is called on the SDK's background thread."""
        create = partial(
            AsyncSandbox.create,
            project,
            project_id=project_id,
            runtime=runtime,
            env=env,
            egress=egress,
            idle_timeout_seconds=idle_timeout_seconds,
            max_lifetime_seconds=max_lifetime_seconds,
            pipeline_run_id=pipeline_run_id,
            agents=agents,
            plan=plan,
            lessons=lessons,
            memory_mb=memory_mb,
            wait=wait,
            on_event=on_event,
            base_url=base_url,
            token=token,
            config=config,
        )
        return cls(run(create))

    @classmethod
    def connect(
        cls,
        session_id: str,
        *,
        base_url: str | None = None,
        token: str | None = None,
        config: ClientConfig | None = None,
    ) -> Self:
        return cls(run(partial(AsyncSandbox.connect, session_id, base_url=base_url, token=token, config=config)))

    @staticmethod
    def list(
        *,
        status: str | None = None,
        project_id: str | None = None,
        user_id: str | None = None,
        limit: int | None = None,
        base_url: str | None = None,
        token: str | None = None,
        config: ClientConfig | None = None,
    ) -> list[SessionInfo]:
        return run(
            partial(
                AsyncSandbox.list,
                status=status,
                project_id=project_id,
                user_id=user_id,
                limit=limit,
                base_url=base_url,
                token=token,
                config=config,
            )
        )

    @staticmethod
    def upload(
        project: str | Path,
        *,
        project_id: str | None = None,
        base_url: str | None = None,
        token: str | None = None,
        config: ClientConfig | None = None,
    ) -> ProjectInfo:
        return run(
            partial(AsyncSandbox.upload, project, project_id=project_id, base_url=base_url, token=token, config=config)
        )

    @property
    def info(self) -> SessionInfo:
        return self._async.info

    @property
    def session_id(self) -> str:
        return self._async.session_id

    @property
    def preview_url(self) -> str | None:
        return self._async.preview_url

    def get_host(self, port: int) -> str:
        return self._async.get_host(port)

    def refresh(self) -> SessionInfo:
        return run(self._async.refresh)

    def events(self, *, after: int = 0) -> Generator[LaunchEvent]:
        return iterate(lambda: self._async.events(after=after))

    def wait(self, *, on_event: Callable[[LaunchEvent], None] | None = None, after: int = 0) -> SessionInfo:
        return run(lambda: self._async.wait(on_event=on_event, after=after))

    def logs(self, role: str | None = None, *, follow: bool = False) -> Generator[LogLine]:
        return iterate(lambda: self._async.logs(role, follow=follow))

    def pipeline_log(self) -> str:
        return run(self._async.pipeline_log)

    def relaunch(
        self,
        *,
        memory_mb: int | None = None,
        wait: bool = True,
        on_event: Callable[[LaunchEvent], None] | None = None,
    ) -> SessionInfo:
        return run(lambda: self._async.relaunch(memory_mb=memory_mb, wait=wait, on_event=on_event))

    def recover(self, *, wait: bool = True, on_event: Callable[[LaunchEvent], None] | None = None) -> SessionInfo:
        return run(lambda: self._async.recover(wait=wait, on_event=on_event))

    def set_timeout(self, seconds: int) -> SessionInfo:
        return run(lambda: self._async.set_timeout(seconds))

    def stats(self) -> dict[str, Any]:
        return run(self._async.stats)

    def processes(self, role: str | None = None) -> builtins.list[ProcessEntry]:
        return run(lambda: self._async.processes(role))

    def signal(self, pid: int, signal: str = "TERM", *, role: str | None = None) -> None:
        run(lambda: self._async.signal(pid, signal, role=role))

    def kill(self) -> None:
        run(self._async.kill)

    def close(self) -> None:
        """Close the connections to the service. The session is not terminated."""
        run(self._async.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.kill()
        finally:
            self.close()
