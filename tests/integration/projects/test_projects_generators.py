"""Detection of projects that the frameworks' own generators create.

Node.js and Django come from PyPI for the moment of the test, so that nothing but uv is needed on the machine.
"""

import asyncio
import os
import tarfile
from pathlib import Path

import pytest

from sandbox.domain.plan import LaunchPlan
from sandbox.engine.runtimes import RuntimeCatalog
from sandbox.projects.archive import ArchiveKind, normalise
from sandbox.projects.archive_readers import ArchiveLimits
from sandbox.projects.manifest import make_plan
from sandbox.projects.source import open_source

NPX = ("npx", "--yes")
VITE = (*NPX, "create-vite@latest", "app", "--no-interactive", "--template")


async def generated(folder: Path, command: tuple[str, ...]) -> LaunchPlan:
    """Run a generator that creates the folder `app`, and return the plan after packing it as in an upload."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "CI": "1", "npm_config_cache": str(folder / "cache")},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    upload, packed = folder / "upload.tar.gz", folder / "project.tar.gz"
    with tarfile.open(upload, "w:gz") as tar:
        tar.add(folder / "app", "app")
    normalise(upload, ArchiveKind.TAR_GZ, ArchiveLimits(64 << 20, 20_000), packed)
    with open_source(packed) as source:
        return make_plan(source, RuntimeCatalog().list())


@pytest.mark.parametrize(
    ("command", "role", "runtime", "framework", "start", "port"),
    [
        *(
            (
                (*VITE, template),
                "frontend",
                "node20",
                "vite",
                "npm run dev -- --host 0.0.0.0 --port 5173 --strictPort",
                5173,
            )
            for template in ("react", "vanilla-ts", "svelte")
        ),
        (
            (*NPX, "express-generator@latest", "--no-view", "app"),
            "backend",
            "node20",
            "express",
            "npm start",
            3000,
        ),
        (
            (*NPX, "create-next-app@latest", "app", "--yes", "--skip-install", "--disable-git"),
            "frontend",
            "node20",
            "next",
            "npm run dev -- --hostname 0.0.0.0 --port 3000",
            3000,
        ),
        (
            ("uvx", "--from", "django", "django-admin", "startproject", "app"),
            "backend",
            "python312",
            "django",
            "python manage.py migrate --noinput && exec python manage.py runserver 0.0.0.0:8000",
            8000,
        ),
    ],
    ids=["vite-react", "vite-vanilla-ts", "vite-svelte", "express", "next", "django"],
)
async def test_generated_projects(
    tmp_path: Path, command: tuple[str, ...], role: str, runtime: str, framework: str, start: str, port: int
) -> None:
    plan = await generated(tmp_path, command)
    assert list(plan.roles) == [role]
    made = plan.roles[role]
    assert (made.runtime, made.framework, made.start, made.port) == (runtime, framework, start, port)
    assert made.install == (
        "npm install" if runtime == "node20" else "uv venv --allow-existing --python 3.12 && uv pip install django"
    )
