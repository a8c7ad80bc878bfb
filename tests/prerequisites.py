"""Runs a command with everything that the tests need: engine, runtime images, PostgreSQL's programs, Chromium.

`python tests/prerequisites.py pytest tests/unit` - a container engine that had to be started for it is stopped at its
end, however it ends. The exit code is the command's.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.db.migrations import OLDEST_SERVER
from sandbox.engine.runtimes import RuntimeCatalog
from sandbox.errors import SandboxError
from sandbox.images.runtime_images import RuntimeImages
from sandbox.provision import apt
from sandbox.provision.engine import ensure_engine, stop_engine
from sandbox.settings import Settings

HOME = Path(__file__).resolve().parent.parent / ".sandbox" / "tests"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
POSTGRES = Path("/usr/lib/postgresql")
OLDEST_POSTGRES = OLDEST_SERVER // 10_000
CLUSTER_SETTINGS = Path("/etc/postgresql-common/createcluster.d/no-main-cluster.conf")


def main(command: list[str]) -> int:
    """Set everything up, run the command, and clean up. Answers the command's exit code."""
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        ensure_packages()
        asyncio.run(ensure_images())
        if not shutil.which("docker"):
            need("docker-cli")
        return subprocess.run(command, check=False).returncode
    except SandboxError as error:
        print(f"prerequisites: {error}\n{error.hint}", file=sys.stderr)
        return 1
    finally:
        if stop_engine(HOME):
            say("Stopped the container engine that was started for the tests")


def say(line: str) -> None:
    print(line, flush=True)


async def ensure_images() -> None:
    """A container engine, and every runtime's image on it."""
    settings = Settings(home=HOME)
    facts = await ensure_engine(settings, say)
    say(f"Container engine {facts.version}")
    catalog = RuntimeCatalog()
    images = RuntimeImages(catalog, settings.docker_host)
    for runtime in catalog.list():
        say(f"Runtime image {await images.ensure(runtime.name, say)}")


def ensure_packages() -> None:
    """The browser and the database server that tests use, from the distribution where they are missing."""
    if not any(map(shutil.which, BROWSERS)):
        need("chromium")
    if not has_postgres():
        with no_cluster_of_its_own(), apt.services_not_started():
            need("postgresql")


def need(package: str) -> None:
    if not apt.can_install():
        raise SandboxError(
            f"The tests need {package}, which is not installed",
            hint=f"Type: sudo apt-get update && sudo apt-get install -y {package}",
            code="test_prerequisite_missing",
        )
    apt.install([package], say)


def has_postgres() -> bool:
    """Whether the programs of a PostgreSQL server are there, of a version that we support."""
    versions = [int(folder.name) for folder in POSTGRES.glob("*") if folder.name.isdigit()]
    return any(v >= OLDEST_POSTGRES and (POSTGRES / str(v) / "bin" / "initdb").exists() for v in versions)


@contextmanager
def no_cluster_of_its_own() -> Iterator[None]:
    """Only the programs are wanted: keep the package from making and starting a database."""
    CLUSTER_SETTINGS.parent.mkdir(parents=True, exist_ok=True)
    CLUSTER_SETTINGS.write_text("create_main_cluster = false\n")
    try:
        yield
    finally:
        CLUSTER_SETTINGS.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
