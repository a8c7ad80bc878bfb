"""`sandbox lessons`: what failed launches have taught, and what it prevents."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from sandbox.cli import output
from sandbox.cli.output import Json
from sandbox.client.transport import Transport

app = typer.Typer(help="See what failed launches have taught.", no_args_is_help=True)

_API = "/api/v1"


@app.command("list")
def list_lessons(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Maximum number of lessons.")] = 50,
    as_json: Json = False,
) -> None:
    """List lessons, newest first, with what they prevent.

    Example: sandbox lessons list --limit 10
    """
    answer = output.run(_call(ctx, "GET", f"{_API}/lessons?limit={limit}"))
    if as_json:
        output.print_json(answer)
        return
    listing = output.table("ID", "AGENT", "SEVERITY", "SEEN", "REMEDY", "PREVENTS", "LESSON")
    for lesson in answer["items"]:
        trigger = lesson["trigger"] or {}
        listing.add_row(
            str(lesson["id"]),
            Text(output.plain(lesson["agent_name"])),
            lesson["severity"],
            str(trigger.get("occurrences") or "-"),
            trigger.get("remedy") or "-",
            "out of use" if not lesson["is_active"] else _effect(lesson["effect"]),
            Text(output.plain(lesson["lesson_text"])),
        )
    output.out().print(listing)


def _effect(effect: dict[str, Any]) -> str:
    """The share of failures that the lesson prevents, with its interval, or why it is not known."""
    if effect["prevented"] is None:
        return f"too few to tell ({effect['applied']} with, {effect['withheld']} without)"
    return f"{effect['prevented']:+.0%} ({effect['low']:+.0%} to {effect['high']:+.0%})"


@app.command("refine")
def refine(
    ctx: typer.Context,
    pipeline_run: Annotated[str | None, typer.Option(help="Read only the launches of this pipeline run.")] = None,
    as_json: Json = False,
) -> None:
    """Write lessons from what has failed since the last refinement run (admin).

    The service does the same by itself, for a project at the latest when it is launched again.

    Example: sandbox lessons refine
    """
    body = {"pipeline_run_id": pipeline_run} if pipeline_run else {}
    run = output.run(_call(ctx, "POST", f"{_API}/refinement-runs/execute", body))
    if as_json:
        output.print_json(run)
    else:
        output.out().print(f"read {run['issues_analyzed']} issues; new lessons: {run['lessons_generated']}")


async def _call(ctx: typer.Context, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    transport = Transport(output.config_of(ctx))
    try:
        return await transport.json(method, path, body=body, timeout=None)
    finally:
        await transport.aclose()
