"""The environment's lock, and finding uv on a machine that has nothing."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from sandbox import bootstrap

PAGE = """
<!DOCTYPE html><html><body>
<a href="../../packages/uv-1.2.3-py3-none-macosx_11_0_arm64.whl#sha256=aa">mac</a>
<a href="../../packages/uv-1.2.3-py3-none-musllinux_1_1_x86_64.whl#sha256=bb">musl</a>
<a href="../../packages/uv-1.2.30-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl#sha256=cc">other</a>
<a href="../../packages/uv-1.2.3-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl#sha256=dd">this</a>
<a href="../../packages/uv-1.2.3.tar.gz#sha256=ee">source</a>
</body></html>
"""


def test_the_wheel_of_the_locked_version_for_this_machine_is_chosen() -> None:
    chosen = bootstrap.choose_wheel(PAGE, "1.2.3", ("manylinux.*_x86_64",))
    assert chosen is not None
    assert chosen.endswith("sha256=dd")
    assert bootstrap.choose_wheel(PAGE, "1.2.3", ("manylinux.*_riscv64",)) is None
    assert bootstrap.choose_wheel(PAGE, "9.9.9", ("manylinux.*_x86_64",)) is None


def test_the_lock_names_uv_with_its_digests() -> None:
    version, digests = bootstrap.locked("uv")
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests)
    with pytest.raises(bootstrap.Failed, match="make lock"):
        bootstrap.locked("no-such-package")


def test_the_lock_names_no_address() -> None:
    lock = bootstrap.LOCK.read_text()
    assert "://" not in lock
    assert "--index" not in lock
    assert "--find-links" not in lock


def test_the_lock_has_every_dependency_of_the_project() -> None:
    names = set(re.findall(r"^([a-z0-9-]+)==", bootstrap.LOCK.read_text(), re.MULTILINE))
    description = bootstrap.ROOT.joinpath("pyproject.toml").read_text()
    wanted = {name.lower() for name in re.findall(r'^    "([A-Za-z0-9-]+)[\[>=]', description, re.MULTILINE)}
    assert wanted, "no dependency was found in pyproject.toml"
    assert wanted <= names


def test_it_stands_on_the_standard_library_alone() -> None:
    tree = ast.parse(Path(bootstrap.__file__).read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module.partition(".")[0] for module in modules} <= sys.stdlib_module_names
