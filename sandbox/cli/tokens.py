"""`sandbox token`: the tokens with which callers authenticate."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.text import Text

from sandbox.cli import output
from sandbox.cli.output import Json
from sandbox.client.aio import pages
from sandbox.client.transport import Transport
from sandbox.domain.caller import CallerRole

app = typer.Typer(help="Create, list and revoke access tokens (admin).", no_args_is_help=True)
_PATH = "/api/v1/tokens"


@app.command("create")
def create(
    ctx: typer.Context,
    user_id: Annotated[str, typer.Argument(metavar="USER", help="User whose token it is.")],
    role: Annotated[
        CallerRole, typer.Option(help="user: access to own sessions only; admin: access to everything.")
    ] = CallerRole.USER,
    expires_in: Annotated[int | None, typer.Option(min=1, help="Validity in seconds. Default: until revoked.")] = None,
    as_json: Json = False,
) -> None:
    """Create a token and print it. It cannot be shown again.

    Example: sandbox token create alice --expires-in 86400
    """
    body: dict[str, Any] = {"user_id": user_id, "role": role.value}
    if expires_in is not None:
        body["expires_in_seconds"] = expires_in
    created = output.run(_call(ctx, "POST", _PATH, body=body))
    if as_json:
        output.print_json(created)
    else:
        sys.stdout.write(f"{created['token']}\n")
        output.err().print(f"Token {created['token_id']} of {user_id}; it cannot be shown again.", style="dim")


@app.command("list")
def list_tokens(ctx: typer.Context, as_json: Json = False) -> None:
    """List the ids, users and validity of all tokens, but not the tokens themselves.

    Example: sandbox token list
    """
    items = output.run(_all(ctx))
    if as_json:
        output.print_json({"items": items})
        return
    listing = output.table("TOKEN ID", "USER", "ROLE", "CREATED", "EXPIRES", "REVOKED")
    for item in items:
        times = (_minute(item.get(name)) for name in ("created_at", "expires_at", "revoked_at"))
        listing.add_row(item["token_id"], Text(output.plain(item["user_id"])), item["role"], *times)
    output.out().print(listing)


def _minute(time: str | None) -> str:
    return "-" if time is None else f"{datetime.fromisoformat(time):%Y-%m-%d %H:%M}"


@app.command("revoke")
def revoke(ctx: typer.Context, token_id: Annotated[str, typer.Argument(metavar="TOKEN_ID")]) -> None:
    """Revoke a token immediately.

    Example: sandbox token revoke 5b1e0c9a-7d3f-4a51-9f0e-0a4cb2a1c7de
    """
    output.run(_call(ctx, "DELETE", f"{_PATH}/{token_id}"))
    output.out().print(f"revoked {token_id}")


async def _call(ctx: typer.Context, method: str, path: str, **options: Any) -> dict[str, Any]:
    transport = Transport(output.config_of(ctx))
    try:
        return await transport.json(method, path, **options)
    finally:
        await transport.aclose()


async def _all(ctx: typer.Context) -> list[dict[str, Any]]:
    transport = Transport(output.config_of(ctx))
    try:
        return [item async for item in pages(transport, _PATH, {})]
    finally:
        await transport.aclose()
