"""The commands that launch and use sessions."""

from __future__ import annotations

import asyncio
import sys
import tomllib
import uuid
import webbrowser
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from sandbox.cli import output
from sandbox.cli.output import Json, JsonLines, Raw
from sandbox.cli.progress import describe, print_failure, show
from sandbox.cli.sanitise import coloured
from sandbox.client import AsyncSandbox, ClientConfig, LaunchFailed, NotFoundError, SandboxError, SessionInfo
from sandbox.domain.session import SessionStatus

Session = Annotated[str, typer.Argument(metavar="SESSION", help="Session id or its first characters.")]
Role = Annotated[
    str | None, typer.Option("--role", "-r", help="Container to use: frontend, backend, … Default: the first.")
]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Do not wait for the launch to finish.")]
Memory = Annotated[int | None, typer.Option("--memory", metavar="MIB", help="Memory of each container, in MiB.")]
STYLES = {
    SessionStatus.RUNNING: "green",
    SessionStatus.READY: "green",
    SessionStatus.CREATING: "cyan",
    SessionStatus.ERROR: "red",
    SessionStatus.TERMINATED: "dim",
}


def create(
    ctx: typer.Context,
    path: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="Project folder, .zip or .tar.gz. Without it: a blank session."),
    ] = None,
    *,
    project: Annotated[
        str | None,
        typer.Option(
            "--project", "-p", help="Id of a project that was uploaded earlier; with PATH, the id to upload it as."
        ),
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="Runtime of a blank session: python312, node20, … Default: python312.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", help="Environment variable of the app, as NAME=VALUE; repeatable."),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option("--secret", "-s", help="Variable whose value is a stored secret, as NAME=SECRET; repeatable."),
    ] = None,
    egress: Annotated[
        str | None,
        typer.Option(
            metavar="all|none|LIST",
            help="What the session may connect to: all (neither the host nor private networks), none, or host names "
            "and IPv4 networks with commas between.",
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="File in the form of sandbox.toml; its roles replace those of the project's plan.",
        ),
    ] = None,
    idle_timeout: Annotated[
        int | None, typer.Option(help="Seconds without use after which the session is terminated.")
    ] = None,
    lessons: Annotated[
        bool, typer.Option("--lessons/--no-lessons", help="Let lessons of earlier failures change the launch's plan.")
    ] = True,
    memory: Memory = None,
    detach: Detach = False,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the preview in the browser.")] = False,
    as_json: Json = False,
) -> None:
    """Launch a project in a new sandbox and show the progress of the launch.

    Prints the preview's URL at the end, or the cause of the failure (exit code 1).

    Example: sandbox create examples/fullstack --env DEBUG=1 --open
    """
    config, variables = output.config_of(ctx), output.variables(env, secret)
    stated = _read_plan(plan) if plan else None

    async def work() -> SessionInfo:
        project_id = project
        if path is not None:
            sent = await AsyncSandbox.upload(path, project_id=project, config=config)
            project_id = sent.project_id
            if not as_json:
                output.err().print(f"Uploaded {path} as {sent.project_id}; files: {sent.files}.", style="dim")
        sandbox = await AsyncSandbox.create(
            project_id=project_id,
            runtime=runtime,
            env=variables,
            egress=egress.split(",") if egress not in (None, "all", "none") else egress,
            plan=stated,
            idle_timeout_seconds=idle_timeout,
            lessons=lessons,
            memory_mb=memory,
            wait=False,
            config=config,
        )
        return sandbox.info if detach else await watch_launch(sandbox, quiet=as_json)

    info = output.run(work())
    if as_json:
        output.print_json(info.raw)
    else:
        _print_outcome(info)
    if open_browser and info.preview_url:
        webbrowser.open(info.preview_url)


def _read_plan(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path} is not TOML: {error}", param_hint="--plan") from error


async def watch_launch(sandbox: AsyncSandbox, *, quiet: bool) -> SessionInfo:
    """Show the progress of the launch until it is over. If it fails, print the cause and exit with code 1."""
    console = output.err()
    try:
        with show(console, quiet=quiet) as progress:
            return await sandbox.wait(on_event=progress)
    except LaunchFailed as failure:
        if quiet:
            raise
        print_failure(console, failure)
        raise typer.Exit(output.Exit.FAILED) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print(f"The launch continues in the background: sandbox watch {sandbox.session_id[:8]}", style="dim")
        raise


def _print_outcome(info: SessionInfo) -> None:
    console, short = output.out(), info.session_id[:8]
    console.print(Text.assemble("session  ", (info.session_id, "bold"), "  ", (info.status, STYLES[info.status])))
    for lesson in info.lessons:
        role, change = (output.plain(str(lesson.get(key))) for key in ("role", "change"))
        console.print(Text(f"lesson   {lesson.get('lesson_id')} ({role}): {change}", style="cyan"), soft_wrap=True)
    if info.preview_url:
        console.print(Text.assemble("preview  ", (info.preview_url, "bold green")), soft_wrap=True)
    for warning in info.raw.get("warnings") or []:
        text = output.plain(f"{warning['message']}\n{warning['hint']}")
        output.err().print(Text.assemble(("warning  ", "yellow"), text), soft_wrap=True)
    if info.status is SessionStatus.CREATING:
        output.err().print(f"Watch it: sandbox watch {short}", style="dim")
    else:
        output.err().print(f"Next: sandbox shell {short} · sandbox logs -f {short} · sandbox kill {short}", style="dim")


def watch(ctx: typer.Context, session: Session, as_json: JsonLines = False) -> None:
    """Show the progress of a session's launch, from its first stage on.

    Example: sandbox watch 3f2a
    """

    async def work() -> SessionInfo | None:
        sandbox = await find(output.config_of(ctx), session)
        if not as_json:
            return await watch_launch(sandbox, quiet=False)
        async with aclosing(sandbox.events()) as events:
            async for event in events:
                output.print_json({"type": event.type, **event.data})
        return None

    info = output.run(work())
    if info is not None:
        _print_outcome(info)


def list_sessions(
    ctx: typer.Context,
    *,
    status: Annotated[SessionStatus | None, typer.Option(help="Only sessions with this status.")] = None,
    project: Annotated[str | None, typer.Option("--project", "-p", help="Only sessions of this project.")] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Include terminated sessions.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of sessions.")] = 100,
    as_json: Json = False,
) -> None:
    """List your sessions, newest first.

    Example: sandbox list --status running
    """
    filter_status = None if status is None else status.value
    found = output.run(
        AsyncSandbox.list(status=filter_status, project_id=project, limit=limit, config=output.config_of(ctx))
    )
    if not everything and status is None:
        found = [info for info in found if info.status is not SessionStatus.TERMINATED]
    if as_json:
        output.print_json({"items": [info.raw for info in found]})
        return
    if not found:
        output.err().print("No sessions. Launch one: sandbox create PATH")
        return
    listing = output.table("SESSION", "STATUS", "PROJECT", "ROLES", "AGE", "PREVIEW")
    for info in found:
        state = info.status.value if info.error is None else f"{info.status} ({info.error.get('code')})"
        listing.add_row(
            info.session_id[:8],
            Text(state, style=STYLES[info.status]),
            Text(output.plain(info.project_id or "-")),
            Text(", ".join(info.containers) or info.runtime_type),
            _age(info.created_at),
            str(info.preview_port or "-"),
        )
    output.out().print(listing)


def _age(since: datetime | None) -> str:
    if since is None:
        return "-"
    age = int((datetime.now(UTC) - since).total_seconds())
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if age >= size:
            return f"{age // size} {unit}"
    return f"{max(age, 0)} s"


def logs(
    ctx: typer.Context,
    session: Session,
    *,
    role: Role = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Continue with new output until the app ends.")
    ] = False,
    launch: Annotated[bool, typer.Option("--launch", help="Show the log of the launch instead.")] = False,
    raw: Raw = False,
    as_json: JsonLines = False,
) -> None:
    """Show the output of a session's app.

    Example: sandbox logs -f 3f2a --role backend
    """

    async def work() -> None:
        sandbox = await find(output.config_of(ctx), session)
        if launch:
            await _launch_log(sandbox, follow, as_json, raw=raw)
            return
        async with aclosing(sandbox.logs(role, follow=follow)) as lines:
            async for line in lines:
                if as_json:
                    output.print_json({"role": line.role, "stream": line.stream, "line": line.line, "time": line.time})
                else:
                    prefix = "" if role or not line.role else f"{line.role} │ "
                    sys.stdout.write(f"{prefix}{line.line if raw else coloured(line.line)}\n")
                    sys.stdout.flush()

    output.run(work())


async def _launch_log(sandbox: AsyncSandbox, follow: bool, as_json: bool, *, raw: bool) -> None:
    if not follow and not as_json:
        log = await sandbox.pipeline_log()
        sys.stdout.write(log if raw else coloured(log))
        return
    async with aclosing(sandbox.events()) as events:
        async for event in events:
            if as_json:
                output.print_json({"type": event.type, **event.data})
            elif (line := describe(event)) is not None:
                output.out().print(line, soft_wrap=True)


def open_preview(
    ctx: typer.Context,
    session: Session,
    print_only: Annotated[bool, typer.Option("--print", help="Print the URL without opening it.")] = False,
) -> None:
    """Open a session's preview in the browser.

    Example: sandbox open 3f2a
    """
    info = output.run(_info(output.config_of(ctx), session))
    if info.preview_url is None:
        raise SandboxError(
            f"Session {info.session_id[:8]} is {info.status} and has no preview",
            hint=f"See the log of its launch: sandbox logs --launch {info.session_id[:8]}",
            code="no_preview",
        )
    sys.stdout.write(info.preview_url + "\n")
    if not print_only:
        webbrowser.open(info.preview_url)


async def _info(config: ClientConfig, session: str) -> SessionInfo:
    return (await find(config, session)).info


def kill(
    ctx: typer.Context,
    sessions: Annotated[list[str], typer.Argument(metavar="SESSION", help="Session ids or their first characters.")],
    as_json: Json = False,
) -> None:
    """Terminate sessions and remove their containers, networks and volumes. Their files are lost.

    Example: sandbox kill 3f2a 81c0
    """

    async def work() -> list[str]:
        found = [await find(output.config_of(ctx), session) for session in sessions]
        for sandbox in found:
            await sandbox.kill()
        return [sandbox.session_id for sandbox in found]

    killed = output.run(work())
    if as_json:
        output.print_json({"terminated": killed})
    else:
        for session_id in killed:
            output.out().print(f"terminated {session_id}")


def relaunch(
    ctx: typer.Context, session: Session, memory: Memory = None, detach: Detach = False, as_json: Json = False
) -> None:
    """Launch the project again in the same session.

    Example: sandbox relaunch 3f2a
    """
    run_again(ctx, session, partial(AsyncSandbox.relaunch, memory_mb=memory), detach, as_json)


def run_again(
    ctx: typer.Context,
    session: str,
    start: Callable[..., Coroutine[Any, Any, SessionInfo]],
    detach: bool,
    as_json: bool,
) -> None:
    """Relaunch or recover a session and show the progress."""

    async def work() -> SessionInfo:
        sandbox = await find(output.config_of(ctx), session)
        console = output.err()
        try:
            with show(console, quiet=as_json or detach) as progress:
                return await start(sandbox, wait=not detach, on_event=progress)
        except LaunchFailed as failure:
            if as_json:
                raise
            print_failure(console, failure)
            raise typer.Exit(output.Exit.FAILED) from None

    info = output.run(work())
    if as_json:
        output.print_json(info.raw)
    else:
        _print_outcome(info)


async def find(config: ClientConfig, prefix: str) -> AsyncSandbox:
    """Return the session with this id, or the only one whose id begins so. Terminated ones count if there is no other.

    Raises NotFoundError, or BadParameter if several sessions match.
    """
    try:
        return await AsyncSandbox.connect(str(uuid.UUID(prefix)), config=config)
    except ValueError:
        pass
    beginning = prefix.lower()
    if not beginning or not all(char in "0123456789abcdef-" for char in beginning):
        raise typer.BadParameter(f"{prefix!r} is not the beginning of a session id; see: sandbox list")
    found = [info for info in await AsyncSandbox.list(config=config) if info.session_id.startswith(beginning)]
    alive = [info for info in found if info.status is not SessionStatus.TERMINATED]
    matches = alive or found
    if not matches:
        raise NotFoundError(
            404, "session_not_found", f"None of your sessions begins with {prefix}", hint="See them: sandbox list --all"
        )
    if len(matches) > 1:
        some = ", ".join(info.session_id[:13] for info in matches[:5])
        raise typer.BadParameter(f"{len(matches)} sessions begin with {prefix}: {some}")
    return await AsyncSandbox.connect(matches[0].session_id, config=config)
