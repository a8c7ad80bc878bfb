"""The manifests of runtimes, and the catalog of their folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.engine.runtimes import RuntimeCatalog, RuntimeInvalid, RuntimeUnknown

MANIFEST = """
name = "{name}"
description = "A runtime"
language = "any"
[base]
image = "debian:bookworm-slim"
"""


def add_runtime(folder: Path, name: str, manifest: str | None = None) -> Path:
    runtime = folder / name
    runtime.mkdir()
    (runtime / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\n")
    (runtime / "runtime.toml").write_text(MANIFEST.format(name=name) if manifest is None else manifest)
    return runtime


def test_the_shipped_runtimes() -> None:
    catalog = RuntimeCatalog()
    assert {"python312", "node20"} <= {runtime.name for runtime in catalog.list()}
    assert catalog.get("python312").base.image == "python:3.12-slim-bookworm"
    assert catalog.get("node20").base.image == "node:20-bookworm-slim"


def test_a_folder_with_both_files_is_a_runtime(tmp_path: Path) -> None:
    add_runtime(tmp_path, "first")
    assert [runtime.name for runtime in RuntimeCatalog(tmp_path).list()] == ["first"]
    add_runtime(tmp_path, "another")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "README.md").write_text("not a runtime")
    catalog = RuntimeCatalog(tmp_path)
    assert [runtime.name for runtime in catalog.list()] == ["another", "first"]
    assert catalog.get("another").folder == tmp_path / "another"


def test_the_error_for_an_unknown_runtime_lists_the_known_ones(tmp_path: Path) -> None:
    add_runtime(tmp_path, "first")
    with pytest.raises(RuntimeUnknown) as raised:
        RuntimeCatalog(tmp_path).get("../first")
    assert raised.value.code == "runtime_unknown"
    assert "first" in raised.value.hint


@pytest.mark.parametrize(
    ("manifest", "cause"),
    [
        ("name = ", "not TOML"),
        (MANIFEST.format(name="other"), "has the name other"),
        (MANIFEST.format(name="broken") + "\nbogus = 1", "bogus"),
        (MANIFEST.format(name="broken").replace("debian:bookworm-slim", ""), "base.image"),
        (MANIFEST.format(name="broken") + '\n[verify]\n"true" = "("', "regular expression"),
        (MANIFEST.format(name="broken") + '\n[detect]\nfiles = ["../outside"]', "detect.files"),
        (MANIFEST.format(name="broken") + '\n[base.local]\npackages = ["-o=x"]', "base.local.packages"),
    ],
)
def test_the_error_for_an_invalid_manifest_names_file_and_cause(tmp_path: Path, manifest: str, cause: str) -> None:
    add_runtime(tmp_path, "broken", manifest)
    with pytest.raises(RuntimeInvalid, match=r"runtime\.toml") as raised:
        RuntimeCatalog(tmp_path).list()
    assert raised.value.code == "runtime_invalid"
    assert cause in raised.value.message


@pytest.mark.parametrize("missing", ["Dockerfile", "runtime.toml"])
def test_a_folder_without_one_of_its_two_files_is_refused(tmp_path: Path, missing: str) -> None:
    (add_runtime(tmp_path, "half") / missing).unlink()
    with pytest.raises(RuntimeInvalid, match=f"half has no {missing}"):
        RuntimeCatalog(tmp_path).list()


@pytest.mark.parametrize(
    ("runtime", "files", "expected"),
    [
        ("python312", {"uv.lock", "requirements.txt", "pyproject.toml"}, "uv sync"),
        ("python312", {"requirements.txt", "pyproject.toml"}, "uv pip install -r requirements.txt"),
        ("python312", {"pyproject.toml"}, "uv pip install -r pyproject.toml"),
        ("node20", {"package.json", "pnpm-lock.yaml"}, "pnpm install --frozen-lockfile"),
        ("node20", {"package.json", "yarn.lock"}, "yarn install --frozen-lockfile"),
        ("node20", {"package.json", "package-lock.json"}, "npm ci"),
        ("node20", {"package.json"}, "npm install"),
    ],
)
def test_the_lock_file_decides_the_install_command(runtime: str, files: set[str], expected: str) -> None:
    command = RuntimeCatalog().get(runtime).install_command(files)
    assert command is not None
    assert expected in command


def test_without_dependencies_there_is_no_install_command() -> None:
    assert RuntimeCatalog().get("python312").install_command({"main.py"}) is None
