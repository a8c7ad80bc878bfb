"""The commands about sessions."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import uuid
import webbrowser
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from sandbox.cli import output
from sandbox.cli.progress import describe, print_failure, show
from sandbox.client import AsyncSandbox, ClientConfig, LaunchFailed, NotFoundError, SandboxError, SessionInfo
from sandbox.domain.session import SessionStatus

Session = Annotated[str, typer.Argument(metavar="SESSION", help="Session id, or the first characters of it.")]
Role = Annotated[str | None, typer.Option("--role", "-r", help="Which container: frontend, backend, … (the first).")]
Json = Annotated[bool, typer.Option("--json", help="JSON for scripts: one document, or one a line for streams.")]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Do not wait for the launch.")]
STYLES = {
    SessionStatus.RUNNING: "green",
    SessionStatus.READY: "green",
    SessionStatus.CREATING: "cyan",
    SessionStatus.ERROR: "red",
    SessionStatus.TERMINATED: "dim",
}


def create(
    ctx: typer.Context,
    path: Annotated[Path | None, typer.Argument(help="Project folder, .zip or .tar.gz. None: a blank session.")] = None,
    *,
    project: Annotated[
        str | None, typer.Option("--project", "-p", help="Id of a project uploaded before; with PATH: upload as this.")
    ] = None,
    runtime: Annotated[str | None, typer.Option(help="Runtime of a blank session: python312, node20, …")] = None,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE for the app; repeatable.")] = None,
    idle_timeout: Annotated[int | None, typer.Option(help="Seconds without use after which it ends.")] = None,
    detach: Detach = False,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the preview in the browser.")] = False,
    as_json: Json = False,
) -> None:
    """Launch a project in a new sandbox and watch it come up.

    Ends with the preview's URL, or with the cause of the failure (exit code 1).

    Example: sandbox create examples/fullstack --env DEBUG=1 --open
    """
    config, variables = output.config_of(ctx), output.parse_env(env)

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
            idle_timeout_seconds=idle_timeout,
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


async def watch_launch(sandbox: AsyncSandbox, *, quiet: bool) -> SessionInfo:
    """Show the launch until it is over. A failed one is told in full, and ends the command with code 1."""
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
        console.print(f"The launch goes on without you: sandbox watch {sandbox.session_id[:8]}", style="dim")
        raise


def _print_outcome(info: SessionInfo) -> None:
    console, short = output.out(), info.session_id[:8]
    console.print(Text.assemble("session  ", (info.session_id, "bold"), "  ", (info.status, STYLES[info.status])))
    if info.preview_url:
        console.print(Text.assemble("preview  ", (info.preview_url, "bold green")), soft_wrap=True)
    if info.status is SessionStatus.CREATING:
        output.err().print(f"Watch it: sandbox watch {short}", style="dim")
    else:
        output.err().print(f"Next: sandbox shell {short} · sandbox logs -f {short} · sandbox kill {short}", style="dim")


def watch(ctx: typer.Context, session: Session, as_json: Json = False) -> None:
    """Watch a launch from its first stage, whenever it began.

    With --json, the launch's events, one a line.

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
    status: Annotated[SessionStatus | None, typer.Option(help="Only those in this state.")] = None,
    project: Annotated[str | None, typer.Option("--project", "-p", help="Only those of this project.")] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Terminated ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 100,
    as_json: Json = False,
) -> None:
    """List your sessions, newest first.

    Example: sandbox list --status running
    """
    wanted = None if status is None else status.value
    found = output.run(AsyncSandbox.list(status=wanted, project_id=project, limit=limit, config=output.config_of(ctx)))
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
    passed = int((datetime.now(UTC) - since).total_seconds())
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if passed >= size:
            return f"{passed // size} {unit}"
    return f"{max(passed, 0)} s"


def logs(
    ctx: typer.Context,
    session: Session,
    *,
    role: Role = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more is printed.")] = False,
    launch: Annotated[bool, typer.Option("--launch", help="The launch's log instead of the app's.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a session's app prints.

    Example: sandbox logs -f 3f2a --role backend
    """

    async def work() -> None:
        sandbox = await find(output.config_of(ctx), session)
        if launch:
            await _launch_log(sandbox, follow, as_json)
            return
        async with aclosing(sandbox.logs(role, follow=follow)) as lines:
            async for line in lines:
                if as_json:
                    output.print_json({"role": line.role, "stream": line.stream, "line": line.line, "time": line.time})
                else:
                    prefix = "" if role or not line.role else f"{line.role} │ "
                    sys.stdout.write(f"{prefix}{line.line}\n")
                    sys.stdout.flush()

    output.run(work())


async def _launch_log(sandbox: AsyncSandbox, follow: bool, as_json: bool) -> None:
    if not follow and not as_json:
        sys.stdout.write(await sandbox.pipeline_log())
        return
    async with aclosing(sandbox.events()) as events:
        async for event in events:
            if as_json:
                output.print_json({"type": event.type, **event.data})
            elif (line := describe(event)) is not None:
                output.out().print(line, soft_wrap=True)


def exec_command(
    ctx: typer.Context,
    session: Session,
    command: Annotated[
        list[str], typer.Argument(help="The command. One word is run by the shell; put -- before one with options.")
    ],
    *,
    role: Role = None,
    cwd: Annotated[str | None, typer.Option(help="Folder to run it in (/workspace).")] = None,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE; repeatable.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0.1, help="Seconds after which it is killed.")] = None,
    stdin: Annotated[bool, typer.Option(help="Send what is piped in.")] = True,
    as_json: Json = False,
) -> None:
    """Run a command in a sandbox; ends with the command's own exit code.

    What is piped in goes to the command.

    Example: sandbox exec 3f2a --role backend -- python -m pytest -q
    """
    cmd: str | list[str] = command[0] if len(command) == 1 else command
    variables = output.parse_env(env)
    piped = _piped_input() if stdin else None

    async def work() -> int:
        sandbox = await find(output.config_of(ctx), session)
        options: dict[str, Any] = {"cwd": cwd, "env": variables, "timeout": timeout, "role": role, "stdin": piped}
        if as_json:
            result = await sandbox.commands.run(cmd, **options)
            output.print_json({name: getattr(result, name) for name in result.__slots__})
        else:
            result = await sandbox.commands.run(
                cmd,
                **options,
                on_stdout=lambda text: _write(sys.stdout, text),
                on_stderr=lambda text: _write(sys.stderr, text),
            )
            if result.timed_out:
                output.err().print(f"The command was killed after {timeout} s.", style="red")
        return result.exit_code

    code = output.run(work())
    raise typer.Exit(code if 0 <= code <= 255 else 1)


def _write(stream: Any, text: str) -> None:
    stream.write(text)
    stream.flush()


def _piped_input() -> str | None:
    """All of stdin if it is a pipe or a file; a terminal, /dev/null and a closed one give nothing."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return None
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
        return None
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise SandboxError(
            "What is piped in is not UTF-8 text",
            hint="Write it to a file of the sandbox instead.",
            code="stdin_not_text",
        ) from None


def open_preview(
    ctx: typer.Context,
    session: Session,
    print_only: Annotated[bool, typer.Option("--print", help="Print the URL, open nothing.")] = False,
) -> None:
    """Open a session's preview in the browser.

    Example: sandbox open 3f2a
    """
    info = output.run(_info(output.config_of(ctx), session))
    if info.preview_url is None:
        raise SandboxError(
            f"Session {info.session_id[:8]} is {info.status} and has no preview",
            hint=f"See how its launch went: sandbox logs --launch {info.session_id[:8]}",
            code="no_preview",
        )
    sys.stdout.write(info.preview_url + "\n")
    if not print_only:
        webbrowser.open(info.preview_url)


async def _info(config: ClientConfig, session: str) -> SessionInfo:
    return (await find(config, session)).info


def kill(
    ctx: typer.Context,
    sessions: Annotated[
        list[str], typer.Argument(metavar="SESSION...", help="Session ids, or their first characters.")
    ],
    as_json: Json = False,
) -> None:
    """Terminate sessions: their containers, networks and volumes are removed for good.

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


def relaunch(ctx: typer.Context, session: Session, detach: Detach = False, as_json: Json = False) -> None:
    """Run the launch anew in the same session.

    Example: sandbox relaunch 3f2a
    """
    again(ctx, session, "relaunch", detach, as_json)


def again(ctx: typer.Context, session: str, verb: str, detach: bool, as_json: bool) -> None:
    async def work() -> SessionInfo:
        sandbox = await find(output.config_of(ctx), session)
        again = sandbox.relaunch if verb == "relaunch" else sandbox.recover
        console = output.err()
        try:
            with show(console, quiet=as_json or detach) as progress:
                return await again(wait=not detach, on_event=progress)
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
    """The session whose id this is or, uniquely, begins with; one that is over only if no other does."""
    try:
        return await AsyncSandbox.connect(str(uuid.UUID(prefix)), config=config)
    except ValueError:
        pass
    wanted = prefix.lower()
    if not wanted or not all(char in "0123456789abcdef-" for char in wanted):
        raise typer.BadParameter(f"{prefix!r} is not the beginning of a session id; see: sandbox list")
    found = [info for info in await AsyncSandbox.list(config=config) if info.session_id.startswith(wanted)]
    alive = [info for info in found if info.status is not SessionStatus.TERMINATED]
    matches = alive or found
    if not matches:
        raise NotFoundError(
            404, "session_not_found", f"No session of yours begins with {prefix}", hint="See them: sandbox list --all"
        )
    if len(matches) > 1:
        some = ", ".join(info.session_id[:13] for info in matches[:5])
        raise typer.BadParameter(f"{len(matches)} sessions begin with {prefix}: {some}")
    return await AsyncSandbox.connect(matches[0].session_id, config=config)
