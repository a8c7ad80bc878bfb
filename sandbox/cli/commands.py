"""`sandbox exec`: run one command in a sandbox."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from typing import Annotated, Any, TextIO

import typer

from sandbox.cli import output
from sandbox.cli.output import Json, Raw
from sandbox.cli.sanitise import Sanitiser
from sandbox.cli.sessions import Role, Session, find
from sandbox.client import SandboxError


def exec_command(
    ctx: typer.Context,
    session: Session,
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND",
            help="Command to run. A single word is run by the shell. Put -- before a command with options.",
        ),
    ],
    *,
    role: Role = None,
    cwd: Annotated[str | None, typer.Option(help="Working folder. Default: /workspace.")] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", help="Environment variable, as NAME=VALUE; repeatable.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(min=0.1, help="Seconds after which the command is killed.")] = None,
    stdin: Annotated[bool, typer.Option(help="Pass piped input on to the command.")] = True,
    raw: Raw = False,
    as_json: Json = False,
) -> None:
    """Run a command in a sandbox and exit with its exit code.

    Piped input is passed on to the command.

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
                on_stdout=_writer(sys.stdout, raw=raw),
                on_stderr=_writer(sys.stderr, raw=raw),
            )
            if result.timed_out:
                output.err().print(f"The command was killed after {timeout} s.", style="red")
        return result.exit_code

    code = output.run(work())
    raise typer.Exit(code if 0 <= code <= 255 else 1)


def _writer(stream: TextIO, *, raw: bool) -> Callable[[str], None]:
    """Return a function that prints output of the sandbox: to a terminal with colours only, unless `raw`."""
    shown = Sanitiser() if stream.isatty() and not raw else str

    def write(text: str) -> None:
        stream.write(shown(text))
        stream.flush()

    return write


def _piped_input() -> str | None:
    """Return all of stdin if it is a pipe or a file. For a terminal, /dev/null or a closed stdin, return None."""
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
            "The piped input is not UTF-8 text",
            hint="Write it to a file in the sandbox instead.",
            code="stdin_not_text",
        ) from None
