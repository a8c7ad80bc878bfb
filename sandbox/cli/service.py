"""The commands about the service itself."""

from __future__ import annotations

from typing import Annotated

import typer
import uvicorn
from pydantic import ValidationError
from rich.text import Text

from sandbox.cli import output, process
from sandbox.client.config import TOKEN_FILE
from sandbox.errors import InvalidInput
from sandbox.settings import Settings


def load_settings() -> Settings:
    """The settings of the environment. Raises InvalidInput that names each variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidInput(
            f"The settings are not right: {wrong}", hint="The README lists every setting.", code="bad_settings"
        ) from error


def serve() -> None:
    """Be the service, in the foreground, until told to stop. What `sandbox up` starts.

    Example: sandbox serve
    """
    from sandbox.app import create_app  # noqa: PLC0415 - the whole service; no other command needs it

    settings = load_settings()
    with process.claim(settings):
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(settings),
                host=settings.host,
                port=settings.port,
                log_level=settings.log_level.lower(),
                access_log=False,
                timeout_graceful_shutdown=5,
            )
        )
        server.run()
        if not server.started:
            raise typer.Exit(output.Exit.FAILED)


def up(
    foreground: Annotated[bool, typer.Option("--foreground", "-f", help="Run here, until Ctrl-C.")] = False,
) -> None:
    """Set everything up and start the service.

    Brings up the container engine, the runtime images and the database, then the service in the background. What is
    there already is left as it is, so it may be run again at any time.

    Example: SANDBOX_PORT=9000 sandbox up
    """
    settings = load_settings()
    start(settings, foreground=foreground)
    if not foreground:
        print_next(settings)


def start(settings: Settings, *, foreground: bool = False) -> None:
    """Start the service, unless it runs."""
    if process.running_pid(process.pid_file(settings)) is not None and process.is_ready(settings):
        output.err().print(Text("✓ the service runs already", style="green"))
        return
    if foreground:
        serve()
        return
    with output.err().status("starting the service"):
        pid = process.start_detached(settings)
    output.err().print(Text.assemble(("✓ ", "green"), f"service (pid {pid}, log {process.log_file(settings)})"))


def print_next(settings: Settings) -> None:
    """Where the service is, how to open its console, what to type next."""
    console, url, token = output.out(), process.base_url(settings), _token(settings)
    console.print(Text.assemble("service  ", (url, "bold")))
    if token is not None:
        console.print(Text.assemble("console  ", (f"{url}/?token={token}", "bold")), soft_wrap=True)
    if settings.port != 8000:
        console.print(f"For the next commands: export SANDBOX_PORT={settings.port}", style="dim")
    console.print("Next: sandbox create PATH · sandbox demo · sandbox list · sandbox down", style="dim")


def _token(settings: Settings) -> str | None:
    if settings.admin_token:
        return settings.admin_token
    try:
        return (settings.home / TOKEN_FILE).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def down() -> None:
    """Stop the service, and what `sandbox up` started for it. Data and sandboxes stay.

    Example: sandbox down
    """
    settings = load_settings()
    console = output.err()
    stopped = [path for path in sorted(settings.home.glob("service-*.pid")) if process.stop(path) is not None]
    for path in stopped:
        console.print(Text.assemble(("✓ ", "green"), f"stopped the service of {path.stem.removeprefix('service-')}"))
    if not stopped:
        console.print("No service was running.")
