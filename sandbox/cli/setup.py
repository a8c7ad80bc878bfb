"""Sets up what the service needs, with progress on the console: engine, images, database, migrations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from sandbox.cli.output import plain
from sandbox.cli.progress import seconds
from sandbox.settings import Settings

Progress = Callable[[str], None]


class Step:
    """A running step. Call it with a line of progress. `result` is printed at the end of the step."""

    def __init__(self, show: Progress) -> None:
        self._show = show
        self.result = ""

    def __call__(self, line: str) -> None:
        self._show(plain(line).strip()[:300])


@contextmanager
def step(console: Console, title: str) -> Iterator[Step]:
    """Show a step's title and its latest line of progress, and at the end of the block its result and duration."""
    started = time.monotonic()
    if console.is_terminal:
        with console.status(Text(title)) as status:
            work = Step(lambda line: status.update(Text.assemble(title, ("  ", ""), (line, "dim"))))
            yield work
    else:
        work = Step(lambda line: console.print(Text(f"  {line}"), soft_wrap=True))
        console.print(Text(f"{title} …"))
        yield work
    duration = seconds((time.monotonic() - started) * 1000)
    console.print(
        Text.assemble(("✓ ", "green"), title, (f" {work.result}" if work.result else ""), (f"  {duration}", "dim"))
    )


async def set_up(settings: Settings, console: Console) -> None:
    """Set up everything that the service needs, as far as it is not set up yet.

    Raises the error of a step that fails.
    """
    from sandbox.provision.engine import ensure_engine

    with step(console, "container engine") as work:
        engine = await ensure_engine(settings, work)
        work.result = f"{engine.version}{', started by sandbox up' if engine.started_by_us else ''}"
    await build_images(settings, console)
    await ensure_database(settings, console)


async def build_images(settings: Settings, console: Console, names: list[str] | None = None) -> dict[str, str]:
    """Build the missing images of these runtimes, by default of all, and return the reference of each.

    First prints which of this machine's network settings the containers will not get.
    """
    from sandbox.engine.host_environment import container_environment
    from sandbox.engine.runtimes import RuntimeCatalog
    from sandbox.images.runtime_images import RuntimeImages

    host = container_environment()
    for note in host.notes:
        console.print(Text.assemble(("! ", "yellow"), plain(note)))
    catalog = RuntimeCatalog()
    images = RuntimeImages(catalog, settings.docker_host, host=host)
    references = {}
    for runtime in [catalog.get(name) for name in names] if names else catalog.list():
        with step(console, f"runtime {runtime.name}") as work:
            work.result = references[runtime.name] = await images.ensure(runtime.name, work)
    return references


async def ensure_database(settings: Settings, console: Console) -> list[str]:
    """Start the embedded PostgreSQL unless DATABASE_URL is set, and migrate. Return the names of applied migrations."""
    from sandbox.db.embedded import EmbeddedPostgres
    from sandbox.db.migrations import migrate

    dsn = settings.database_url
    if dsn is None:
        with step(console, "database") as work:
            dsn = await EmbeddedPostgres(settings.home).start()
            work.result = f"embedded PostgreSQL in {settings.home}"
    with step(console, "migrations") as work:
        applied = await migrate(dsn)
        work.result = f"{len(applied)} applied" if applied else "up to date"
    return applied
