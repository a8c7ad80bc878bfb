"""`sandbox down`: stops what `sandbox up` started, and prints what is left running."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import typer
from rich.text import Text

from sandbox.cli import output, process
from sandbox.cli.environment import admin_token, load_settings
from sandbox.cli.output import Json
from sandbox.cli.setup import step
from sandbox.client import AsyncSandbox
from sandbox.client.config import ClientConfig
from sandbox.domain.session import SessionStatus
from sandbox.errors import Conflict, SandboxError, Unavailable
from sandbox.settings import Settings

_TIMEOUT_SECONDS = 120.0


def down(
    sandboxes: Annotated[
        bool, typer.Option("--sandboxes", help="First terminate all sandboxes of all users. Their files are lost.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Stop the service, and the database and engine that `sandbox up` started for it.

    No data is deleted. If `sandbox up` started the container engine, it is stopped, and so are the sandboxes, whose
    files stay. With an engine that was there before, sandboxes keep running. `sandbox up` finds them again in both
    cases.

    Example: sandbox down --sandboxes
    """
    settings, console, stopped = load_settings(), output.err(), []
    if sandboxes:
        with step(console, "sandboxes terminated") as work:
            work.result = str(output.run(_terminate_sandboxes(settings)))
    for path in sorted(settings.home.glob("service-*.pid")):
        pid = process.stop(path)
        if pid is not None:
            stopped.append(pid)
            console.print(Text.assemble(("✓ ", "green"), f"service stopped (pid {pid})"))
    if not stopped:
        console.print(Text("- no service was running", style="dim"))
    _stop_edges(settings)
    left = output.run(_stop_database_and_engine(settings))
    if as_json:
        output.print_json({"stopped": stopped, "sandboxes": left})


def _stop_edges(settings: Settings) -> None:
    """Stop the proxies in front of the services of this data folder."""
    from sandbox.edge.process import EdgeProcess

    for folder in sorted(settings.home.glob("edge-*")):
        port = folder.name.removeprefix("edge-")
        if port.isdecimal():
            pid = EdgeProcess(settings.model_copy(update={"port": int(port)})).stop()
            if pid is not None:
                output.err().print(Text.assemble(("✓ ", "green"), f"edge stopped (pid {pid})"))


async def _terminate_sandboxes(settings: Settings) -> int:
    """Terminate every session of the deployment, wait until their resources are removed, and return their number."""
    config = ClientConfig(_running_service_url(settings), admin_token(settings))
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    requested: set[str] = set()
    while left := await _not_terminated(config):
        for session_id in left - requested:
            sandbox = await AsyncSandbox.connect(session_id, config=config)
            await sandbox.kill()
            await sandbox.aclose()
        requested |= left
        if time.monotonic() > deadline:
            raise Unavailable(
                f"{len(left)} sandboxes were not terminated within {_TIMEOUT_SECONDS:.0f} s",
                hint="The service continues in the background. See what is wrong: sandbox doctor",
                code="sandboxes_remain",
            )
        await asyncio.sleep(0.2)
    return len(requested)


async def _not_terminated(config: ClientConfig) -> set[str]:
    statuses = [status for status in SessionStatus if status is not SessionStatus.TERMINATED]
    return {info.session_id for status in statuses for info in await AsyncSandbox.list(status=status, config=config)}


def _running_service_url(settings: Settings) -> str:
    """Return the URL of a running service of this data folder. Its port may differ from the current setting.

    Raises Conflict if none is running.
    """
    for path in sorted(settings.home.glob("service-*.pid")):
        if process.running_pid(path) is not None:
            port = int(path.stem.rpartition("-")[2])
            return process.base_url(settings.model_copy(update={"port": port}))
    raise Conflict(
        "No service is running that could terminate the sandboxes",
        hint="Run: sandbox up && sandbox down --sandboxes",
        code="not_running",
    )


async def _stop_database_and_engine(settings: Settings) -> int | None:
    """Stop the database and the engine if `sandbox up` started them.

    Return the number of sandboxes that have containers, or None if it cannot be determined.
    """
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
            console.print(
                Text.assemble(("! ", "yellow"), f"the number of sandboxes is unknown: {output.plain(str(error))}")
            )
    if state.running:
        with step(console, "database stopped"):
            await embedded.stop()
    if await asyncio.to_thread(stop_engine, settings.home):
        with_it = f", and {_count(left)} with it; their files stay" if left else ""
        console.print(Text.assemble(("✓ ", "green"), f"container engine stopped{with_it}"))
    elif left:
        console.print(Text.assemble(("! ", "yellow"), f"{_count(left)} left running"))
        console.print("Next: sandbox up · To terminate all: sandbox up && sandbox down --sandboxes", style="dim")
    return left


def _count(sandboxes: int) -> str:
    return "1 sandbox" if sandboxes == 1 else f"{sandboxes} sandboxes"


async def _sandboxes_left(settings: Settings, dsn: str) -> int:
    """Return how many sandboxes have containers on the engine. If none has, remove the shared network."""
    from sandbox.db import migrations
    from sandbox.db.connection import Database
    from sandbox.db.deployment import load_deployment
    from sandbox.engine.base import ResourceKind
    from sandbox.engine.docker.engine import DockerEngine
    from sandbox.engine.guest_client.client import GuestClient
    from sandbox.engine.labels import POOL_ROLE

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
        for resource in found:
            if resource.role == POOL_ROLE and resource.session_id and resource.kind is ResourceKind.CONTAINER:
                # It waits in the pool. It is of no use until the service starts again.
                await engine.remove_session(resource.session_id)
        found = await engine.list_resources()
        sessions = {resource.session_id for resource in found if resource.kind is ResourceKind.CONTAINER}
        if not sessions:
            for resource in found:
                if resource.session_id is None:
                    await engine.remove(resource)
        return len(sessions)
    finally:
        await engine.aclose()
