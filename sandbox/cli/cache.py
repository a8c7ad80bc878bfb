"""`sandbox cache`: dependencies that are kept from earlier launches."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sandbox.cli import output
from sandbox.cli.output import Json
from sandbox.client.transport import Transport

app = typer.Typer(help="Show and clear dependencies kept from earlier launches.", no_args_is_help=True)

_PATH = "/api/v1/cache"
_MIB = 1024 * 1024
User = Annotated[str | None, typer.Option("--user", help="Only of this user (admin).")]


@app.command("list")
def list_kept(ctx: typer.Context, user: User = None, as_json: Json = False) -> None:
    """List kept installs and downloads, the last used first. Launches with equal inputs get them as copies.

    Example: sandbox cache list
    """
    page = output.run(_request(ctx, "GET", user_id=user, limit=500))
    if as_json:
        output.print_json(page)
        return
    listing = output.table("KIND", "USER", "PROJECT", "ROLE", "RUNTIME", "FILES", "MIB", "USED")
    for kept in page["items"]:
        listing.add_row(
            kept["kind"],
            kept["user_id"],
            kept["project_id"],
            kept["role"],
            kept["runtime"],
            str(kept["files"]),
            str(kept["size_bytes"] // _MIB),
            kept["used_at"][:16].replace("T", " "),
        )
    output.out().print(listing)
    output.out().print(f"{page['size_bytes'] // _MIB} MiB of at most {page['limit_bytes'] // _MIB} MiB")


@app.command("clear")
def clear(ctx: typer.Context, user: User = None, as_json: Json = False) -> None:
    """Remove kept installs and downloads: your own; for an admin, everybody's or those of one user.

    The next launches install again, manifests without a lock file in their newest versions.

    Example: sandbox cache clear
    """
    done = output.run(_request(ctx, "DELETE", user_id=user))
    if as_json:
        output.print_json(done)
        return
    output.out().print(f"removed {done['removed']}, {done['size_bytes'] // _MIB} MiB")


async def _request(ctx: typer.Context, method: str, **params: Any) -> dict[str, Any]:
    transport = Transport(output.config_of(ctx))
    try:
        return await transport.json(method, _PATH, params=params)
    finally:
        await transport.aclose()
