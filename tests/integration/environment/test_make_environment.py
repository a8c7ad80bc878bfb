"""`make environment` on a machine that has Python and make, but no uv."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
NEEDED = (
    "console",
    "Makefile",
    "README.md",
    "migrations",
    "pyproject.toml",
    "runtimes",
    "sandbox",
    "scripts",
    "uv.lock",
)
#: Hides ensurepip, which Debian has in a package of its own. Python imports this file by itself at its start.
WITHOUT_ENSUREPIP = "import sys\nsys.modules['ensurepip'] = None\n"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, clone / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(source, clone / name)
    return clone


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python that has neither uv nor pip."""
    bare = tmp_path / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    return bare / "bin" / "python"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Environment variables with a PATH that holds only the programs that make itself needs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in ("make", "sh", "awk"):
        found = shutil.which(program)
        assert found, f"{program} is not on this machine"
        (folder / program).symlink_to(found)
    dropped = {"VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    return {**{name: value for name, value in os.environ.items() if name not in dropped}, "PATH": str(folder)}


def make(
    clone: Path, environ: dict[str, str], python: Path, target: str = "environment"
) -> subprocess.CompletedProcess[str]:
    command = ["make", target, f"PYTHON={python}"]
    return subprocess.run(command, cwd=clone, env=environ, capture_output=True, text=True, check=False)


def test_the_environment_is_made_once_and_repaired_when_it_differs_from_the_lock(
    clone: Path, environ: dict[str, str], python: Path, tmp_path: Path
) -> None:
    first = make(clone, environ, python)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "Installing uv" in first.stdout
    program = "import docker, fastapi, sandbox; print(sandbox.__file__)"
    printed = subprocess.run(
        [clone / ".venv" / "bin" / "python", "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert printed.stdout.strip() == str(clone / "sandbox" / "__init__.py")
    assert (clone / ".venv" / "bin" / "sandbox").is_file()

    second = make(clone, environ, python)
    assert (second.returncode, second.stdout) == (0, ""), second.stdout + second.stderr

    uv, site = clone / ".venv" / "bin" / "uv", next((clone / ".venv" / "lib").glob("python*/site-packages"))
    subprocess.run([uv, "pip", "uninstall", "--quiet", "sniffio"], cwd=clone, check=True)
    assert not (site / "sniffio").exists()
    third = make(clone, environ, python)
    assert third.returncode == 0, third.stdout + third.stderr
    assert (site / "sniffio").is_dir()


def test_a_uv_whose_hash_is_not_in_the_lock_is_refused(clone: Path, environ: dict[str, str], python: Path) -> None:
    lock = clone / "uv.lock"
    packages = lock.read_text().split("[[package]]\n")
    (number,) = (number for number, package in enumerate(packages) if package.startswith('name = "uv"\n'))
    packages[number] = re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, packages[number])
    lock.write_text("[[package]]\n".join(packages))

    done = make(clone, environ, python)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (clone / ".sandbox" / "tools" / "bin" / "uv").exists()
    assert not (clone / ".venv").exists()


def test_a_python_that_cannot_make_environments_is_answered_with_what_to_type(
    clone: Path, environ: dict[str, str], python: Path
) -> None:
    site = next((python.parents[1] / "lib").glob("python*/site-packages"))
    (site / "sitecustomize.py").write_text(WITHOUT_ENSUREPIP)
    done = make(clone, environ, python)
    assert done.returncode != 0
    assert f"sudo apt-get install python3.{sys.version_info.minor}-venv" in done.stderr
    assert "Traceback" not in done.stderr


def test_make_without_a_target_lists_the_targets(clone: Path, environ: dict[str, str]) -> None:
    done = make(clone, environ, Path(sys.executable), target="help")
    for target in ("demo", "up", "down", "test", "check", "lock"):
        assert f"make {target}" in done.stdout
