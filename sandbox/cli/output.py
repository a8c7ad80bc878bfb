"""What every command prints and how it ends: consoles, JSON, errors, exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Coroutine
from enum import IntEnum
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sandbox.client import ApiError, AuthenticationError, ClientConfig, ConnectionFailed, NotFoundError
from sandbox.client import SandboxError as ClientError
from sandbox.errors import Kind
from sandbox.errors import SandboxError as ServiceError

T = TypeVar("T")
AnyError = ClientError | ServiceError


class Exit(IntEnum):
    """Exit codes, told in `sandbox --help`. `exec` and `shell` end with the command's own."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    UNREACHABLE = 5
    INTERRUPTED = 130


_KINDS = {
    Kind.INVALID: Exit.USAGE,
    Kind.NOT_FOUND: Exit.NOT_FOUND,
    Kind.UNAUTHENTICATED: Exit.NOT_ALLOWED,
    Kind.FORBIDDEN: Exit.NOT_ALLOWED,
}


def exit_code(error: AnyError) -> Exit:
    """The exit code that an error stands for."""
    if isinstance(error, ConnectionFailed):
        return Exit.UNREACHABLE
    if isinstance(error, NotFoundError):
        return Exit.NOT_FOUND
    if isinstance(error, AuthenticationError):
        return Exit.NOT_ALLOWED
    if isinstance(error, ApiError):
        return Exit.USAGE if error.status in (400, 413, 415, 422) else Exit.FAILED
    if isinstance(error, ServiceError):
        return _KINDS.get(error.kind, Exit.FAILED)
    return Exit.FAILED


#: Where there is no window, nothing is folded to fit one.
_WIDE = 1000


def out() -> Console:
    """For results. Made when used, so that it writes to where stdout is now."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)


def err() -> Console:
    """For progress and errors."""
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _WIDE)


def print_json(value: Any) -> None:
    """One JSON document on one line of stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def print_error(error: AnyError, *, as_json: bool = False) -> None:
    """Message, code and hint, on stderr."""
    if as_json:
        known = error.to_json() if isinstance(error, ClientError) else _service_error(error)
        sys.stderr.write(json.dumps(known, ensure_ascii=False) + "\n")
        return
    console = err()
    text = Text.assemble(("error: ", "bold red"), error.message, (f"  [{error.code}]", "dim"))
    console.print(text, soft_wrap=True)
    if error.hint:
        console.print(Text.assemble(("hint: ", "bold cyan"), error.hint), soft_wrap=True)
    if isinstance(error, ApiError) and error.request_id and error.status >= 500:
        console.print(Text(f"request id: {error.request_id}", style="dim"))


def _service_error(error: ServiceError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "hint": error.hint}


def plain(value: str) -> str:
    """Text from a sandbox or a user, without what could steer the terminal it is shown on."""
    return "".join(char if char.isprintable() else " " for char in value)


def table(*columns: str) -> Table:
    """A table in this command line's style."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine on a loop of its own."""
    return asyncio.run(work)


def config_of(ctx: typer.Context) -> ClientConfig:
    """The service and the caller that the global options and the environment name."""
    found: ClientConfig = ctx.obj()
    return found


def parse_env(pairs: list[str] | None) -> dict[str, str] | None:
    """`K=V` options as a dict; `K` alone takes the value from this environment."""
    found: dict[str, str] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not name or (not equals and name not in os.environ):
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE, and no variable of this environment")
        found[name] = value if equals else os.environ[name]
    return found or None
