"""`uv.lock`, and `scripts/environment.py`, which installs what it names."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "environment.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("environment", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def locked() -> list[dict[str, Any]]:
    return tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))["package"]


def test_the_lock_names_the_public_index_only() -> None:
    hosts = set(re.findall(r"\w+://[^/\"]+", (ROOT / "uv.lock").read_text("utf-8")))
    assert hosts == {"https://pypi.org", "https://files.pythonhosted.org"}
    sources = [package["source"] for package in locked() if package["name"] != "purple8-sandbox"]
    assert all(source == {"registry": "https://pypi.org/simple"} for source in sources)


def test_every_file_in_the_lock_has_a_hash() -> None:
    for package in locked():
        files = package.get("wheels", []) + [package[kind] for kind in ("sdist",) if kind in package]
        assert files or package["source"] == {"editable": "."}, package["name"]
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", file["hash"]) for file in files), package["name"]


def test_the_lock_is_of_these_dependencies() -> None:
    description = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (project,) = (package for package in locked() if package["name"] == "purple8-sandbox")
    wanted = {"requires-dist": description["project"]["dependencies"]}
    wanted |= {"dev": description["dependency-groups"]["dev"]}
    found = {"requires-dist": project["metadata"]["requires-dist"], "dev": project["metadata"]["requires-dev"]["dev"]}

    def line(requirement: dict[str, Any]) -> str:
        extras = f"[{','.join(requirement['extras'])}]" if "extras" in requirement else ""
        return f"{requirement['name']}{extras}{requirement['specifier']}"

    for group, lines in wanted.items():
        assert sorted(line(requirement) for requirement in found[group]) == sorted(lines), "type: make lock"


def test_uv_is_required_with_the_hashes_of_its_wheels(script: ModuleType) -> None:
    requirement = script.locked_requirement("uv")
    assert re.fullmatch(r"uv==\d+\.\d+\.\d+( --hash=sha256:[0-9a-f]{64})+", requirement)


def test_debian_s_package_for_environments_is_installed_as_root(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(script, "run", lambda command, env: commands.append(command))
    script.install_venv_package()
    assert [command[:2] for command in commands] == [["apt-get", "update"], ["apt-get", "install"]]
    assert commands[-1][-1] == f"python3.{sys.version_info.minor}-venv"


def test_an_old_python_is_answered_with_what_to_type(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    with pytest.raises(SystemExit, match=r"make PYTHON=python3\.12"):
        script.main()


def test_the_script_needs_the_standard_library_only() -> None:
    tree = ast.parse(SCRIPT.read_text("utf-8"))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module.partition(".")[0] for module in modules} <= sys.stdlib_module_names
