"""The commands that start and stop the service."""

from __future__ import annotations

from types import FrameType
from typing import Annotated

import typer
from rich.text import Text

from sandbox.cli import output, process
from sandbox.cli.console import make_link
from sandbox.cli.environment import admin_token, load_settings
from sandbox.cli.output import Json
from sandbox.cli.setup import ensure_database, set_up, step
from sandbox.client import ClientConfig
from sandbox.client import SandboxError as ClientError
from sandbox.settings import Settings


def serve(
    edge: Annotated[
        bool, typer.Option("--edge/--no-edge", help="Whether to run the proxy in front. Without it: no previews.")
    ] = True,
) -> None:
    """Run the service in the foreground. `sandbox up` starts it in the background.

    The service listens on a unix socket behind the edge, a proxy that listens on SANDBOX_HOST and SANDBOX_PORT. With
    --no-edge, which is for development, the service listens there itself.

    Example: sandbox serve
    """
    import uvicorn

    from sandbox.api.routes.terminal import MAX_FRAME_BYTES
    from sandbox.app import create_app
    from sandbox.edge.folder import EdgeFolder

    class Server(uvicorn.Server):
        """Notes in the pid file that it ends: it still answers for a moment."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            process.note_ending(process.pid_file(settings))
            super().handle_exit(sig, frame)

    settings = load_settings()
    process.raise_file_limit()
    with process.claim(settings):
        server = Server(
            uvicorn.Config(
                create_app(settings, edge=edge),
                host=settings.host,
                port=settings.port,
                log_level=settings.log_level.lower(),
                access_log=False,
                log_config=None,
                # The only WebSockets are terminals. Compression would let 16 KB become 16 MiB.
                ws_max_size=MAX_FRAME_BYTES,
                ws_max_queue=4,
                ws_per_message_deflate=False,
                # Only the edge can reach the unix socket, and it replaces what clients send in these headers.
                proxy_headers=edge,
                forwarded_allow_ips="*",
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=5,
            )
        )
        server.run(sockets=[EdgeFolder.of(settings).listen()] if edge else None)
        if not server.started:
            raise typer.Exit(output.Exit.FAILED)


def up(
    foreground: Annotated[
        bool, typer.Option("--foreground", "-f", help="Run the service in the foreground until Ctrl-C.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Set everything up and start the service in the background.

    Starts the container engine, builds the runtime images, starts and migrates the database, then starts the service.
    What exists already is not changed, so this can be repeated at any time. Environment variables such as SANDBOX_PORT,
    SANDBOX_HOME and DATABASE_URL configure it; the README lists them all.

    Example: SANDBOX_PORT=9000 sandbox up
    """
    settings = load_settings()
    output.run(set_up(settings, output.err()))
    if foreground:
        serve(edge=True)
        return
    start(settings)
    if as_json:
        url, token = process.base_url(settings), admin_token(settings)
        output.print_json({"url": url, "console": _console_link(url, token), "token": token})
    else:
        print_next(settings)


def start(settings: Settings) -> None:
    """Start the service in the background unless it runs, and wait until it is ready. One that ends is waited for."""
    with step(output.err(), "service") as work:
        running = process.staying_pid(process.pid_file(settings))
        if running is None:
            process.check_port(settings)
            work.result = f"pid {process.start_detached(settings)}, log {process.log_file(settings)}"
        else:
            process.wait_ready(settings)
            work.result = f"already running, pid {running}"


def print_next(settings: Settings) -> None:
    """Print the service's URL, the link to its console, and commands to try next."""
    console, url, token = output.out(), process.base_url(settings), admin_token(settings)
    console.print(Text.assemble("\nservice  ", (url, "bold")))
    if link := _console_link(url, token):
        console.print(Text.assemble("console  ", (link, "bold"), ("  works once", "dim")), soft_wrap=True)
    if settings.port != 8000:
        console.print(f"For the next commands: export SANDBOX_PORT={settings.port}", style="dim")
    console.print(
        "Next: sandbox demo · sandbox create PATH · sandbox list · sandbox doctor · sandbox down", style="dim"
    )


def _console_link(url: str, token: str | None) -> str | None:
    """A link that signs a browser in as the first admin; None if the token is not known here, or is not valid."""
    if token is None:
        return None
    try:
        return output.run(make_link(ClientConfig(url, token)))
    except ClientError:
        return None


def migrate(as_json: Json = False) -> None:
    """Apply the pending migrations to the database.

    Uses the database of DATABASE_URL. If that is not set, the embedded PostgreSQL is started and migrated.

    Example: DATABASE_URL=postgresql://user:password@host/purple8 sandbox migrate
    """
    applied = output.run(ensure_database(load_settings(), output.err()))
    if as_json:
        output.print_json({"applied": applied})
        return
    for name in applied:
        output.out().print(f"applied {name}")
