"""`sandbox recover`: recovers one session, or compares all with the engine and repairs the differences."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.text import Text

from sandbox.cli import output
from sandbox.cli.output import Json
from sandbox.cli.sessions import Detach, find, run_again
from sandbox.client import AsyncSandbox
from sandbox.client.config import ClientConfig
from sandbox.client.transport import Transport

_PATH = "/api/v1/admin/recovery"


def recover(
    ctx: typer.Context,
    session: Annotated[
        str | None,
        typer.Argument(metavar="SESSION", help="Session id or its first characters. Without it: all sessions (admin)."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would be done (admin).")] = False,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Recover a session that is in error or has lost its containers.

    Without SESSION, compare all sessions with the container engine, recover those that have lost resources, and remove
    resources that belong to no session. The exit code is 1 if an action fails.

    Example: sandbox recover --dry-run
    """
    if session is not None and not dry_run:
        run_again(ctx, session, AsyncSandbox.recover, detach, as_json)
        return
    answer = output.run(_recover(output.config_of(ctx), session, dry_run=dry_run))
    if as_json:
        output.print_json(answer)
    else:
        _print(answer)
    if any(item["outcome"] == "failed" for item in answer["items"]):
        sys.exit(output.Exit.FAILED)


async def _recover(config: ClientConfig, session: str | None, *, dry_run: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"dry_run": dry_run}
    if session is not None:
        sandbox = await find(config, session)
        body["session_ids"] = [sandbox.session_id]
        await sandbox.aclose()
    transport = Transport(config)
    try:
        return await transport.json("POST", _PATH, body=body)
    finally:
        await transport.aclose()


def _print(answer: dict[str, Any]) -> None:
    differing = [item for item in answer["items"] if item["action"] != "none" or _is_in_error(item)]
    same = len(answer["items"]) - len(differing)
    if differing:
        listing = output.table("SESSION OR RESOURCE", "RECORDED", "ACTION", "OUTCOME", "WHY")
        for item in differing:
            name = item["session_id"] if item["recorded"] else ", ".join(r["name"] for r in item["found"])
            recorded = item["recorded"]["status"] if item["recorded"] else "-"
            why = item["error"] or item["reason"]
            listing.add_row(name, recorded, item["action"], item["outcome"], Text(output.plain(why)))
        output.out().print(listing)
    output.err().print(f"{same} as recorded, {len(differing)} differ or are in error", style="dim")


def _is_in_error(item: dict[str, Any]) -> bool:
    recorded = item["recorded"]
    return recorded is not None and recorded["status"] == "error" and recorded["work"] is None
