"""`sandbox show`: the state of one session."""

from __future__ import annotations

from typing import Any

import typer
from rich.text import Text

from sandbox.cli import output
from sandbox.cli.output import Json
from sandbox.cli.sessions import STYLES, Session, find
from sandbox.client import SessionInfo


def show_session(ctx: typer.Context, session: Session, as_json: Json = False) -> None:
    """Show a session: its status, containers and preview; if it is in error, the cause and what to do.

    Example: sandbox show 3f2a
    """
    info = output.run(_info(ctx, session))
    if as_json:
        output.print_json(info.raw)
        return
    for name, value in _facts(info):
        output.out().print(Text.assemble((f"{name:<9}", "dim"), value), soft_wrap=True)


async def _info(ctx: typer.Context, session: str) -> SessionInfo:
    sandbox = await find(output.config_of(ctx), session)
    try:
        return sandbox.info
    finally:
        await sandbox.aclose()


def _facts(info: SessionInfo) -> list[tuple[str, Text]]:
    facts = [
        ("session", Text(info.session_id, "bold")),
        ("status", Text(info.status.value, STYLES[info.status])),
        ("project", Text(output.plain(info.project_id or "-"))),
        *((role, Text(_container(container))) for role, container in info.containers.items()),
    ]
    if info.preview_url:
        facts.append(("preview", Text(info.preview_url)))
    for warning in info.raw.get("warnings") or []:
        facts += [("warning", Text(output.plain(line), "yellow")) for line in str(warning["message"]).splitlines()]
        facts.append(("hint", Text(output.plain(warning["hint"]))))
    if info.error:
        code, message, hint = (str(info.error.get(key) or "") for key in ("code", "message", "hint"))
        facts.append(("error", Text(output.plain(code), "red")))
        facts += [("", Text(output.plain(line), "red")) for line in message.splitlines()]
        facts.append(("hint", Text(output.plain(hint))))
    return facts


def _container(container: dict[str, Any]) -> str:
    description = f"{container.get('runtime')}, {container.get('status')}"
    if container.get("app") != "exited":
        return description
    code = container.get("exit_code")
    return f"{description}, its app exited" + ("" if code is None else f" with {code}")
