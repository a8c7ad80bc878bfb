"""The output that all commands share: consoles, JSON, errors and exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Coroutine
from enum import IntEnum
from typing import Annotated, Any, TypeVar

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

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for scripts.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object per line, for scripts.")]


Raw = Annotated[
    bool, typer.Option("--raw", help="Print control sequences of the sandbox as they are, not only its colours.")
]


class Exit(IntEnum):
    """Exit codes, as documented in `sandbox --help`. `exec` and `shell` exit with the code of what they run."""

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
    """Return the exit code for an error."""
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


#: Control characters that JSON does not escape.
_C1 = re.compile(r"[\x7f-\x9f]")
#: Width of output that does not go to a terminal: lines are not folded.
_UNLIMITED_WIDTH = 1000


def out() -> Console:
    """Return the console for results. Created at each call, because stdout may have been replaced meanwhile."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _UNLIMITED_WIDTH)


def err() -> Console:
    """Return the console for progress and errors."""
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _UNLIMITED_WIDTH)


def print_json(value: Any) -> None:
    """Print one JSON document on one line of stdout."""
    sys.stdout.write(_json(value) + "\n")
    sys.stdout.flush()


def print_error(error: AnyError, *, as_json: bool = False) -> None:
    """Print message, code and hint of an error to stderr."""
    if as_json:
        document = error.to_json() if isinstance(error, ClientError) else _service_error(error)
        sys.stderr.write(_json(document) + "\n")
        return
    console = err()
    text = Text.assemble(("error: ", "bold red"), _lines(error.message), (f"  [{error.code}]", "dim"))
    console.print(text, soft_wrap=True)
    if error.hint:
        console.print(Text.assemble(("hint: ", "bold cyan"), _lines(error.hint)), soft_wrap=True)
    if isinstance(error, ApiError) and error.request_id and error.status >= 500:
        console.print(Text(f"request id: {error.request_id}", style="dim"))


def _service_error(error: ServiceError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "hint": error.hint}


def _json(value: Any) -> str:
    """JSON in one line, without control characters: it may be shown on a terminal."""
    return _C1.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False, default=str))


def _lines(value: str) -> str:
    """The lines of a text, each without control characters."""
    return "\n".join(map(plain, value.splitlines()))


def plain(value: str) -> str:
    """Return the text without control characters.

    Text from sandboxes and users could otherwise control the terminal.
    """
    return "".join(char if char.isprintable() else " " for char in value)


def table(*columns: str) -> Table:
    """Return an empty table in the style of this command line."""
    listing = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        listing.add_column(column, overflow="fold")
    return listing


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine in a new event loop."""
    return asyncio.run(work)


def config_of(ctx: typer.Context) -> ClientConfig:
    """Return the service and the caller, from the global options and the environment."""
    config: ClientConfig = ctx.obj()
    return config


def parse_env(pairs: list[str] | None) -> dict[str, str] | None:
    """Parse `NAME=VALUE` options. A `NAME` without a value gets it from the environment of this process."""
    variables: dict[str, str] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not name or (not equals and name not in os.environ):
            raise typer.BadParameter(f"{pair!r} is neither NAME=VALUE nor the name of an environment variable")
        variables[name] = value if equals else os.environ[name]
    return variables or None


def variables(pairs: list[str] | None, secrets: list[str] | None) -> dict[str, str | dict[str, str]] | None:
    """The variables of `NAME=VALUE` options and of `NAME=SECRET` options, whose values are stored secrets."""
    found: dict[str, str | dict[str, str]] = {**(parse_env(pairs) or {})}
    for pair in secrets or []:
        name, _, secret = pair.partition("=")
        if not name or not secret:
            raise typer.BadParameter(f"{pair!r} is not NAME=SECRET")
        found[name] = {"from_secret": secret}
    return found or None
