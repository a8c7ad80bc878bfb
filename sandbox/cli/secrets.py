"""`sandbox secrets`: values that are kept by name, and the key that encrypts them."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Annotated

import typer
from rich.text import Text

from sandbox.cli import output
from sandbox.cli.environment import load_settings
from sandbox.cli.output import Json
from sandbox.client.secrets import AsyncSecrets
from sandbox.errors import InvalidInput

app = typer.Typer(help="Keep values by name, for the environment of sandboxes.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME")]
Project = Annotated[str | None, typer.Option("--project", help="Project that it is for. Default: all of yours.")]


@app.command("set")
def set_secret(ctx: typer.Context, name: Name, project: Project = None) -> None:
    """Store a value under a name. It is asked for, or read from stdin, so that it is in no history of a shell.

    Example: sandbox secrets set api-key
    """
    value = typer.prompt("Value", hide_input=True) if sys.stdin.isatty() else sys.stdin.read().removesuffix("\n")
    output.run(AsyncSecrets(project, config=output.config_of(ctx)).set(name, value))
    output.out().print(f"stored {name}")


@app.command("list")
def list_secrets(ctx: typer.Context, project: Project = None, as_json: Json = False) -> None:
    """List the names of your secrets, but not their values.

    Example: sandbox secrets list
    """
    items = output.run(AsyncSecrets(project, config=output.config_of(ctx)).list())
    if as_json:
        output.print_json({"items": items})
        return
    listing = output.table("NAME", "PROJECT", "UPDATED")
    for item in items:
        updated = f"{datetime.fromisoformat(item['updated_at']):%Y-%m-%d %H:%M}"
        listing.add_row(item["name"], Text(output.plain(item["project_id"] or "all")), updated)
    output.out().print(listing)


@app.command("rm")
def remove(ctx: typer.Context, name: Name, project: Project = None) -> None:
    """Remove a secret. Sandboxes that have its value keep it until they end.

    Example: sandbox secrets rm api-key
    """
    output.run(AsyncSecrets(project, config=output.config_of(ctx)).remove(name))
    output.out().print(f"removed {name}")


@app.command("rotate-key")
def rotate_key() -> None:
    """Make a new key on the service's machine. The service encrypts all values with it after its next start.

    The earlier keys stay in the file until you remove them: what they have signed, such as the telemetry tokens of
    running sandboxes, is valid as long.

    Example: sandbox secrets rotate-key
    """
    from sandbox.secrets.keys import add_key, key_path

    settings = load_settings()
    if settings.keys is not None:
        raise InvalidInput(
            "The keys of this service are given by SANDBOX_KEYS.", hint="Put a new one before those that are there."
        )
    add_key(settings.home)
    output.out().print(f"{key_path(settings.home)} has a new key; start the service again: sandbox down && sandbox up")
