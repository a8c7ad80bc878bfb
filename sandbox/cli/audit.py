"""`sandbox audit`: who did what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from rich.text import Text

from sandbox.cli import output
from sandbox.cli.output import Json
from sandbox.client.audit import AsyncAudit


def audit(
    ctx: typer.Context,
    *,
    user: Annotated[str | None, typer.Option(help="What this user did.")] = None,
    action: Annotated[str | None, typer.Option(help="Such as session.create.")] = None,
    resource: Annotated[str | None, typer.Option(help="What was done to the resource of this id or name.")] = None,
    since: Annotated[str | None, typer.Option(help="Not before this time, such as 2026-11-30T12:00:00Z.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many entries.")] = 50,
    as_json: Json = False,
) -> None:
    """Show who did what to which session, project, token or secret, newest first (admin).

    Example: sandbox audit --user alice --limit 20
    """
    log = AsyncAudit(config=output.config_of(ctx))
    items = output.run(log.list(user_id=user, action=action, resource=resource, since=since, limit=limit))
    if as_json:
        output.print_json({"items": items})
        return
    listing = output.table("TIME", "USER", "ACTION", "RESOURCE", "OUTCOME", "ADDRESS", "REQUEST")
    for item in items:
        texts = (item["user_id"], item["action"], item["resource"] or "-", item["outcome"], item["address"] or "-")
        time = f"{datetime.fromisoformat(item['time']):%Y-%m-%d %H:%M:%S}"
        listing.add_row(time, *(Text(output.plain(value)) for value in texts), (item["request_id"] or "-")[:12])
    output.out().print(listing)
