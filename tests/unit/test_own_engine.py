"""An engine of a test's own never starts in the network namespace of the machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.own_engine import refusal


def test_a_namespace_that_is_shared_is_refused() -> None:
    others = {"the machine (process 1)": "net:[1]", "the container engine with pid 7": "net:[2]"}
    assert refusal("net:[3]", others) is None
    assert refusal("net:[1]", others) == "this network namespace is also that of the machine (process 1)"
    assert "pid 7" in (refusal("net:[2]", others) or "")


@pytest.mark.parametrize("module", ["tests.own_engine", "tests.chaos"])
def test_neither_the_engine_nor_the_fault_run_starts_here(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3
    assert "this network namespace is also that of" in done.stderr
    assert "the process that started it" in done.stderr
