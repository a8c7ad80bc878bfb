"""Sets up what the tests need, then runs a command: a container engine, runtime images, PostgreSQL and Chromium.

Example: `python tests/prerequisites.py pytest tests/acceptance`. The exit code is that of the command. If the container
engine had to be started, it is stopped when the command has ended.
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
    """Set everything up, run the command and clean up. Return the exit code of the command."""
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        ensure_packages()
        asyncio.run(ensure_images())
        if not shutil.which("docker"):
            install("docker-cli")
        return subprocess.run(command, check=False).returncode
    except SandboxError as error:
        print(f"prerequisites: {error}\n{error.hint}", file=sys.stderr)
        return 1
    finally:
        if stop_engine(HOME):
            show("Stopped the container engine that was started for the tests")


def show(line: str) -> None:
    print(line, flush=True)


async def ensure_images() -> None:
    """Make sure that a container engine runs and has the images of all runtimes."""
    settings = Settings(home=HOME)
    facts = await ensure_engine(settings, show)
    show(f"Container engine {facts.version}")
    catalog = RuntimeCatalog()
    images = RuntimeImages(catalog, settings.docker_host)
    for runtime in catalog.list():
        show(f"Runtime image {await images.ensure(runtime.name, show)}")


def ensure_packages() -> None:
    """Install Chromium and PostgreSQL from the distribution if they are missing."""
    if not any(map(shutil.which, BROWSERS)):
        install("chromium")
    if not has_postgres():
        with without_default_cluster(), apt.services_not_started():
            install("postgresql")


def install(package: str) -> None:
    if not apt.can_install():
        raise SandboxError(
            f"The tests need {package}, which is not installed",
            hint=f"Type: sudo apt-get update && sudo apt-get install -y {package}",
            code="test_prerequisite_missing",
        )
    apt.install([package], show)


def has_postgres() -> bool:
    """Whether the programs of a PostgreSQL server of a supported version are installed."""
    versions = [int(folder.name) for folder in POSTGRES.glob("*") if folder.name.isdigit()]
    return any(v >= OLDEST_POSTGRES and (POSTGRES / str(v) / "bin" / "initdb").exists() for v in versions)


@contextmanager
def without_default_cluster() -> Iterator[None]:
    """Prevent the package from creating and starting a database, because only its programs are used."""
    CLUSTER_SETTINGS.parent.mkdir(parents=True, exist_ok=True)
    CLUSTER_SETTINGS.write_text("create_main_cluster = false\n")
    try:
        yield
    finally:
        CLUSTER_SETTINGS.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
