"""`sandbox ps` and `sandbox signal`: what runs in a sandbox."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sandbox.cli import output
from sandbox.cli.output import Json
from sandbox.cli.sessions import Role, Session, find
from sandbox.client import ProcessEntry


def list_processes(ctx: typer.Context, session: Session, role: Role = None, as_json: Json = False) -> None:
    """List what runs in a sandbox, in all containers or in that of one role.

    Works also when the sandbox has used up its processes and no command can be started in it.

    Example: sandbox ps 3f2a
    """

    async def work() -> list[ProcessEntry]:
        sandbox = await find(output.config_of(ctx), session)
        try:
            return await sandbox.processes(role)
        finally:
            await sandbox.aclose()

    found = output.run(work())
    if as_json:
        output.print_json([_document(process) for process in found])
        return
    table = output.table("role", "pid", "ppid", "cpu s", "memory", "command")
    for process in found:
        table.add_row(
            process.role,
            str(process.pid),
            str(process.ppid),
            f"{process.cpu_seconds:.1f}",
            f"{process.memory_bytes / 2**20:.0f} MiB",
            output.plain(process.command),
        )
    output.out().print(table)


def send_signal(
    ctx: typer.Context,
    session: Session,
    pid: Annotated[int, typer.Argument(metavar="PID", min=1, help="Number of the process; see: sandbox ps.")],
    signal: Annotated[str, typer.Argument(metavar="[SIGNAL]", help="HUP, INT, KILL, TERM, … Default: TERM.")] = "TERM",
    *,
    role: Role = None,
) -> None:
    """Send a signal to a process in a sandbox.

    Example: sandbox signal 3f2a 42 KILL
    """

    async def work() -> None:
        sandbox = await find(output.config_of(ctx), session)
        try:
            await sandbox.signal(pid, signal.upper().removeprefix("SIG"), role=role)
        finally:
            await sandbox.aclose()

    output.run(work())


def _document(process: ProcessEntry) -> dict[str, Any]:
    return {name: getattr(process, name) for name in process.__slots__}
