"""`sandbox down`: stop what `sandbox up` started, and say what goes on."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import typer
from rich.text import Text

from sandbox.cli import output, process
from sandbox.cli.environment import admin_token, load_settings
from sandbox.cli.setup import step
from sandbox.client import AsyncSandbox
from sandbox.client.config import ClientConfig
from sandbox.domain.session import SessionStatus
from sandbox.errors import Conflict, SandboxError, Unavailable
from sandbox.settings import Settings

_ENDING_SECONDS = 120.0


def down(
    sandboxes: Annotated[
        bool, typer.Option("--sandboxes", help="First end every sandbox, whoever made it: its files are lost.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document for scripts.")] = False,
) -> None:
    """Stop the service, and the database and engine that `sandbox up` started for it.

    Data is kept. Sandboxes go on where the engine was there before, and `sandbox up` finds them again; with an engine
    that `sandbox up` started their containers end, and their volumes stay. Not running is success.

    Example: sandbox down --sandboxes
    """
    settings, console, stopped = load_settings(), output.err(), []
    if sandboxes:
        with step(console, "sandboxes ended") as work:
            work.result = str(output.run(_end_sandboxes(settings)))
    for path in sorted(settings.home.glob("service-*.pid")):
        pid = process.stop(path)
        if pid is not None:
            stopped.append(pid)
            console.print(Text.assemble(("✓ ", "green"), f"service stopped (pid {pid})"))
    if not stopped:
        console.print(Text("- no service was running", style="dim"))
    left = output.run(_stop_what_it_stood_on(settings))
    if as_json:
        output.print_json({"stopped": stopped, "sandboxes": left})


async def _end_sandboxes(settings: Settings) -> int:
    """End every session of the deployment; how many that were. What the last of them leaves is gone when it returns."""
    config = ClientConfig(_url_of_a_service(settings), admin_token(settings))
    deadline = time.monotonic() + _ENDING_SECONDS
    asked: set[str] = set()
    while left := await _not_terminated(config):
        for session_id in left - asked:
            sandbox = await AsyncSandbox.connect(session_id, config=config)
            await sandbox.kill()
            await sandbox.aclose()
        asked |= left
        if time.monotonic() > deadline:
            raise Unavailable(
                f"{len(left)} sandboxes did not end within {_ENDING_SECONDS:.0f} s",
                hint="The service goes on ending them. See what it waits for: sandbox doctor",
                code="sandboxes_remain",
            )
        await asyncio.sleep(0.2)
    return len(asked)


async def _not_terminated(config: ClientConfig) -> set[str]:
    statuses = [status for status in SessionStatus if status is not SessionStatus.TERMINATED]
    return {info.session_id for status in statuses for info in await AsyncSandbox.list(status=status, config=config)}


def _url_of_a_service(settings: Settings) -> str:
    """Where a running service of this data folder answers; its port need not be the one that is set now."""
    for path in sorted(settings.home.glob("service-*.pid")):
        if process.running_pid(path) is not None:
            port = int(path.stem.rpartition("-")[2])
            return process.base_url(settings.model_copy(update={"port": port}))
    raise Conflict(
        "No service runs that could end the sandboxes",
        hint="Type: sandbox up && sandbox down --sandboxes",
        code="not_running",
    )


async def _stop_what_it_stood_on(settings: Settings) -> int | None:
    """Stop database and engine, as far as they are ours. How many sandboxes have containers; None if nobody can say."""
    from sandbox.db.embedded import EmbeddedPostgres
    from sandbox.provision.engine import stop_engine

    console = output.err()
    embedded = EmbeddedPostgres(settings.home)
    state = await embedded.status()
    left = None
    if dsn := settings.database_url or state.dsn:
        try:
            left = await _sandboxes_left(settings, dsn)
        except SandboxError as error:
            console.print(Text.assemble(("! ", "yellow"), f"sandboxes were not looked for: {output.plain(str(error))}"))
    if state.running:
        with step(console, "database stopped"):
            await embedded.stop()
    if await asyncio.to_thread(stop_engine, settings.home):
        with_it = f", and {_count(left)} with it; their volumes stay" if left else ""
        console.print(Text.assemble(("✓ ", "green"), f"container engine stopped{with_it}"))
    elif left:
        console.print(Text.assemble(("! ", "yellow"), f"{_count(left)} left running"))
        console.print("Next: sandbox up · or, to end all: sandbox up && sandbox down --sandboxes", style="dim")
    return left


def _count(sandboxes: int) -> str:
    return "1 sandbox" if sandboxes == 1 else f"{sandboxes} sandboxes"


async def _sandboxes_left(settings: Settings, dsn: str) -> int:
    """How many sandboxes have containers on the engine. Where none has, the network that they shared is removed."""
    from sandbox.db import migrations
    from sandbox.db.connection import Database
    from sandbox.db.deployment import load_deployment
    from sandbox.engine.base import ResourceKind
    from sandbox.engine.docker.engine import DockerEngine
    from sandbox.engine.guest_client.client import GuestClient

    if not (await migrations.status(dsn)).applied:
        return 0
    db = Database(dsn)
    try:
        deployment = await load_deployment(db)
    finally:
        await db.close()
    engine = DockerEngine(settings, deployment.deployment_id, guest_factory=GuestClient)
    try:
        found = await engine.list_resources()
        sessions = {resource.session_id for resource in found if resource.kind is ResourceKind.CONTAINER}
        if not sessions:
            for resource in found:
                if resource.session_id is None:
                    await engine.remove(resource)
        return len(sessions)
    finally:
        await engine.aclose()
