"""`sandbox console`: a link that signs a browser in."""

from __future__ import annotations

import sys

import typer

from sandbox.cli import output
from sandbox.cli.output import Json
from sandbox.client import ClientConfig
from sandbox.client.transport import Transport


def console(ctx: typer.Context, as_json: Json = False) -> None:
    """Print a link that signs a browser in to the web console, once and within an hour.

    Example: sandbox console
    """
    link = output.run(make_link(output.config_of(ctx)))
    if as_json:
        output.print_json({"console": link})
    else:
        sys.stdout.write(f"{link}\n")


async def make_link(config: ClientConfig) -> str:
    """Return a new link that signs a browser in as the caller. Raises ApiError and ConnectionFailed."""
    transport = Transport(config)
    try:
        made = await transport.json("POST", "/api/v1/sign-in-links")
    finally:
        await transport.aclose()
    return f"{config.base_url}{made['path']}"
