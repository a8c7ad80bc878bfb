"""The plans of the examples are as documented in their README."""

import re
import tarfile
from pathlib import Path

import pytest

from sandbox.domain.plan import LaunchPlan
from sandbox.engine.runtimes import RuntimeCatalog
from sandbox.projects.archive import ArchiveKind, normalise
from sandbox.projects.archive_readers import ArchiveLimits
from sandbox.projects.manifest import make_plan
from sandbox.projects.source import open_source

EXAMPLES = Path(__file__).parents[3] / "examples"


async def plan_of(folder: Path, tmp_path: Path, manifest: str = "") -> LaunchPlan:
    """Return the plan of a folder after packing and normalising it, as in an upload."""
    upload, packed = tmp_path / "upload.tar.gz", tmp_path / "project.tar.gz"
    if manifest:
        (tmp_path / "sandbox.toml").write_text(manifest)
    with tarfile.open(upload, "w:gz") as tar:
        tar.add(folder, ".")
        if manifest:
            tar.add(tmp_path / "sandbox.toml", "sandbox.toml")
    normalise(upload, ArchiveKind.TAR_GZ, ArchiveLimits(64 << 20, 20_000), packed)
    with open_source(packed) as source:
        return make_plan(source, RuntimeCatalog().list())


async def test_fullstack(tmp_path: Path) -> None:
    plan = await plan_of(EXAMPLES / "fullstack", tmp_path)
    backend, frontend = plan.roles["backend"], plan.roles["frontend"]
    assert (backend.runtime, backend.root, backend.framework, backend.port) == (
        "python312", "backend", "fastapi", 8000,
    )  # fmt: skip
    assert backend.install is not None
    assert backend.install.endswith("uv pip install -r requirements.txt")
    assert (frontend.runtime, frontend.root, frontend.framework, frontend.install) == (
        "node20", "frontend", "vite", "npm ci",
    )  # fmt: skip
    assert (plan.preview_role, plan.preview_port, plan.backend_port) == ("frontend", 5173, 8000)


async def test_the_manifest_in_the_readme(tmp_path: Path) -> None:
    detected = await plan_of(EXAMPLES / "fullstack", tmp_path)
    (manifest,) = re.findall(r"```toml\n(.*?)```", (EXAMPLES / "README.md").read_text(), re.DOTALL)
    stated = await plan_of(EXAMPLES / "fullstack", tmp_path, manifest)
    assert stated.roles["frontend"] == detected.roles["frontend"]
    backend = stated.roles["backend"]
    assert (backend.health, backend.env) == ("/api/hello", {"LOG_LEVEL": "debug"})
    assert backend.start == detected.roles["backend"].start


async def test_instrumented(tmp_path: Path) -> None:
    backend = (await plan_of(EXAMPLES / "instrumented", tmp_path)).roles["backend"]
    assert (backend.runtime, backend.port) == ("python312", 8000)
    assert backend.start == "opentelemetry-instrument python app.py"
    assert backend.install is not None
    assert backend.install.endswith("uv pip install -r requirements.txt")


async def test_fastapi(tmp_path: Path) -> None:
    plan = await plan_of(EXAMPLES / "fastapi", tmp_path)
    assert {role: part.framework for role, part in plan.roles.items()} == {"backend": "fastapi"}


@pytest.mark.parametrize("lock", sorted(EXAMPLES.rglob("package-lock.json")), ids=lambda path: path.parent.name)
def test_locks_name_no_registry(lock: Path) -> None:
    assert '"resolved"' not in lock.read_text()
