"""`make` on a machine that has Python and make, and neither uv nor pip: the environment is made as the lock says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
NEEDED = ("Makefile", "README.md", "migrations", "pyproject.toml", "requirements.lock", "runtimes", "sandbox")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, clone / name)
    return clone


def machine(folder: Path, *programs: str) -> dict[str, str]:
    """An environment whose PATH has these programs alone."""
    folder.mkdir()
    for program in programs:
        found = shutil.which(program)
        assert found, f"{program} is not on this machine"
        (folder / program).symlink_to(found)
    settings = {
        name: value
        for name, value in os.environ.items()
        if name not in {"VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    }
    return {**settings, "PATH": str(folder)}


def make(clone: Path, environ: dict[str, str], python: Path, target: str = "environment") -> str:
    done = subprocess.run(
        ["make", target, f"PYTHON={python}"], cwd=clone, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_environment_is_made_once_and_then_left_alone(clone: Path, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    environ = machine(tmp_path / "bin", "make", "sh", "awk")

    said = make(clone, environ, bare / "bin" / "python")
    assert "Getting uv" in said
    assert (clone / ".sandbox" / "tools" / "bin" / "uv").is_file()
    ask = "import docker, fastapi, sandbox; print(sandbox.__file__)"
    printed = subprocess.run(
        [clone / ".venv" / "bin" / "python", "-c", ask], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert printed.stdout.strip() == str(clone / "sandbox" / "__init__.py")
    assert (clone / ".venv" / "bin" / "sandbox").is_file()

    assert make(clone, environ, bare / "bin" / "python") == ""
    with (clone / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert "Making the environment" in make(clone, environ, bare / "bin" / "python")


def test_a_wheel_that_is_not_the_locked_one_is_not_used(clone: Path, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    lock = clone / "requirements.lock"
    lines = lock.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("uv=="))
    end = next(number for number in range(start + 1, len(lines)) if not lines[number].startswith(" "))
    lines[start + 1 : end] = [f"    --hash=sha256:{'0' * 64}"]
    lock.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        ["make", "environment", f"PYTHON={bare / 'bin' / 'python'}"],
        cwd=clone,
        env=machine(tmp_path / "bin", "make", "sh"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "is not the one that requirements.lock names" in done.stderr
    assert not (clone / ".sandbox" / "tools" / "bin" / "uv").exists()
    assert not (clone / ".venv").exists()


def test_make_alone_says_what_there_is(clone: Path, tmp_path: Path) -> None:
    said = make(clone, machine(tmp_path / "bin", "make", "sh", "awk"), Path(sys.executable), target="help")
    for target in ("demo", "up", "down", "test", "check", "lock"):
        assert f"make {target}" in said
