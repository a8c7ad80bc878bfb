"""`sandbox`: the command line, put together."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Annotated

import typer

from sandbox.cli import (
    demo,
    doctor,
    down,
    ingest,
    output,
    recovery,
    retention,
    runtimes,
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
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    ctx: typer.Context,
    url: Annotated[
        str | None, typer.Option("--url", envvar="SANDBOX_URL", help="The service (http://127.0.0.1:8000).")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="SANDBOX_TOKEN", help="Who is calling; on the service's own machine its admin."),
    ] = None,
) -> None:
    """Launch projects in sandboxes, with a live preview of each.

    Start with: sandbox demo

    Exit codes: 0 done; 1 failed (a launch, a check); 2 wrong usage or input; 3 not found; 4 not authenticated or not
    allowed; 5 the service does not answer. exec ends with the command's own.
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
    ("exec", sessions.exec_command),
    ("shell", shell.shell),
    ("open", sessions.open_preview),
    ("relaunch", sessions.relaunch),
    ("recover", recovery.recover),
    ("kill", sessions.kill),
):
    app.command(name, rich_help_panel=_SESSIONS)(session_command)
app.add_typer(ingest.app, name="ingest", rich_help_panel=_ADMINISTRATION)
app.add_typer(retention.app, name="retention", rich_help_panel=_ADMINISTRATION)
app.add_typer(runtimes.app, name="runtimes", rich_help_panel=_ADMINISTRATION)
app.add_typer(tokens.app, name="token", rich_help_panel=_ADMINISTRATION)


def main() -> None:
    """Run the command line. Errors that are expected end with a message, a hint and their exit code."""
    try:
        app()
    except (ClientError, ServiceError) as error:
        own = sys.argv[: sys.argv.index("--")] if "--" in sys.argv else sys.argv
        output.print_error(error, as_json="--json" in own)
        sys.exit(output.exit_code(error))
    except KeyboardInterrupt:
        sys.exit(output.Exit.INTERRUPTED)
    except BrokenPipeError:
        # The reader of stdout is gone (`| head`); nothing more can be said there, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(output.Exit.OK)


if __name__ == "__main__":
    main()
