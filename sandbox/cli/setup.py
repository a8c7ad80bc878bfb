"""What a service stands on, brought up step by step: engine, images, database, migrations."""

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
    """A step under way. Call it with a line of progress; `result` is said when it is done."""

    def __init__(self, say: Progress) -> None:
        self._say = say
        self.result = ""

    def __call__(self, line: str) -> None:
        self._say(plain(line).strip()[:300])


@contextmanager
def step(console: Console, title: str) -> Iterator[Step]:
    """Show that something is under way, with its newest line, and in the end that it is done and how long it took."""
    began = time.monotonic()
    if console.is_terminal:
        with console.status(Text(title)) as status:
            work = Step(lambda line: status.update(Text.assemble(title, ("  ", ""), (line, "dim"))))
            yield work
    else:
        work = Step(lambda line: console.print(Text(f"  {line}"), soft_wrap=True))
        console.print(Text(f"{title} …"))
        yield work
    took = seconds((time.monotonic() - began) * 1000)
    console.print(
        Text.assemble(("✓ ", "green"), title, (f" {work.result}" if work.result else ""), (f"  {took}", "dim"))
    )


async def set_up(settings: Settings, console: Console) -> None:
    """Bring up all that the service needs. What is there already is left as it is. Raises the cause of what fails."""
    from sandbox.provision.engine import ensure_engine

    with step(console, "container engine") as work:
        engine = await ensure_engine(settings, work)
        work.result = f"{engine.version}{', started by sandbox up' if engine.started_by_us else ''}"
    await build_images(settings, console)
    await bring_up_database(settings, console)


async def build_images(settings: Settings, console: Console, names: list[str] | None = None) -> dict[str, str]:
    """Build the images of these runtimes, by default of all, where they are not there; the reference of each.

    What of this machine's network settings containers will not have is said first.
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


async def bring_up_database(settings: Settings, console: Console) -> list[str]:
    """Start the embedded PostgreSQL, unless DATABASE_URL names another, and migrate; the names of what was applied."""
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
