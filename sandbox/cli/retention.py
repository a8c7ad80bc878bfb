"""`sandbox retention`: deletes old records."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sandbox.cli import output
from sandbox.cli.output import Json
from sandbox.client.transport import Transport

app = typer.Typer(help="Delete old records (admin).", no_args_is_help=True)


@app.command("run")
def run(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    as_json: Json = False,
) -> None:
    """Delete records that are older than the SANDBOX_RETENTION_… settings allow.

    The service does the same every few hours.

    Example: sandbox retention run --dry-run
    """
    done = output.run(_run(ctx, dry_run=dry_run))
    if as_json:
        output.print_json(done)
        return
    listing = output.table("TABLE", "ACTION", "OLDER THAN", "ROWS", "PARTITIONS")
    for step in done["steps"]:
        rows = "in use, later" if step["postponed"] else str(step["rows"])
        listing.add_row(
            step["table"], step["action"], f"{step['keep_days']} days", rows, " ".join(step["partitions"]) or "-"
        )
    output.out().print(listing)


async def _run(ctx: typer.Context, *, dry_run: bool) -> dict[str, Any]:
    transport = Transport(output.config_of(ctx))
    try:
        return await transport.json("POST", "/api/v1/admin/retention", body={"dry_run": dry_run}, timeout=None)
    finally:
        await transport.aclose()
