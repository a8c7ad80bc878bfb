"""The command `sandbox`: registers its sub-commands and maps errors to exit codes."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Annotated

import typer

from sandbox.cli import (
    audit,
    cache,
    commands,
    console,
    demo,
    doctor,
    down,
    download,
    ingest,
    lessons,
    output,
    processes,
    recovery,
    retention,
    runtimes,
    secrets,
    service,
    sessions,
    shell,
    show,
    tokens,
)
from sandbox.client import SandboxError as ClientError
from sandbox.client import resolve
from sandbox.errors import SandboxError as ServiceError

app = typer.Typer(
    name="sandbox",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Option("--url", envvar="SANDBOX_URL", help="URL of the service. Default: http://127.0.0.1:8000."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="SANDBOX_TOKEN",
            help="Your access token. Default: the first admin's, if the service runs on this machine.",
        ),
    ] = None,
) -> None:
    """Launch projects in container sandboxes and preview them in the browser.

    Start with: sandbox demo

    Exit codes: 0 done; 1 failed (such as a launch or a check); 2 wrong usage or input; 3 not found; 4 not authenticated
    or not allowed; 5 the service does not answer. exec and shell exit with the code of the command or shell.
    """
    ctx.obj = partial(resolve, url, token)


_SERVICE = "Service"
_SESSIONS = "Sandboxes"
_ADMINISTRATION = "Administration"

for name, command in (
    ("up", service.up),
    ("demo", demo.demo),
    ("doctor", doctor.doctor),
    ("migrate", service.migrate),
    ("down", down.down),
):
    app.command(name, rich_help_panel=_SERVICE)(command)
app.command("serve", hidden=True)(service.serve)

for name, session_command in (
    ("create", sessions.create),
    ("watch", sessions.watch),
    ("list", sessions.list_sessions),
    ("show", show.show_session),
    ("logs", sessions.logs),
    ("exec", commands.exec_command),
    ("shell", shell.shell),
    ("download", download.download),
    ("ps", processes.list_processes),
    ("signal", processes.send_signal),
    ("open", sessions.open_preview),
    ("console", console.console),
    ("relaunch", sessions.relaunch),
    ("recover", recovery.recover),
    ("kill", sessions.kill),
):
    app.command(name, rich_help_panel=_SESSIONS)(session_command)
app.command("audit", rich_help_panel=_ADMINISTRATION)(audit.audit)
app.add_typer(cache.app, name="cache", rich_help_panel=_ADMINISTRATION)
app.add_typer(ingest.app, name="ingest", rich_help_panel=_ADMINISTRATION)
app.add_typer(lessons.app, name="lessons", rich_help_panel=_ADMINISTRATION)
app.add_typer(retention.app, name="retention", rich_help_panel=_ADMINISTRATION)
app.add_typer(runtimes.app, name="runtimes", rich_help_panel=_ADMINISTRATION)
app.add_typer(secrets.app, name="secrets", rich_help_panel=_SESSIONS)
app.add_typer(tokens.app, name="token", rich_help_panel=_ADMINISTRATION)


def main() -> None:
    """Run the command line. An expected error is printed with its hint and gives its exit code."""
    try:
        app()
    except (ClientError, ServiceError) as error:
        # Arguments after "--" belong to the command that exec runs.
        own_arguments = sys.argv[: sys.argv.index("--")] if "--" in sys.argv else sys.argv
        output.print_error(error, as_json="--json" in own_arguments)
        sys.exit(output.exit_code(error))
    except KeyboardInterrupt:
        sys.exit(output.Exit.INTERRUPTED)
    except BrokenPipeError:
        # The reader of stdout has closed it (`| head`). Without this, the interpreter would fail to flush it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(output.Exit.OK)


if __name__ == "__main__":
    main()
