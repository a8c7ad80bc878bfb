"""Finds a CPython on this machine that can be copied into an image. Everything here blocks: call it in a thread."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import uv

from sandbox.engine.docker.build_context import BuildContext

_DESCRIBE = (
    "import json, platform, sys; "
    "print(json.dumps([sys.base_prefix, platform.python_version(), sys.implementation.name]))"
)
_EXCLUDED = {"__pycache__", "test", "tests", "idlelib", "turtledemo", "tkinter", "site-packages", "EXTERNALLY-MANAGED"}
#: The Python of a Linux distribution shares these folders with other programs, so it cannot be copied.
_SHARED_PREFIXES = {Path("/"), Path("/usr")}


@dataclass(frozen=True, slots=True)
class LocalPython:
    """An installation of CPython in a folder of its own."""

    prefix: Path
    version: str
    full_version: str

    def add_to(self, context: BuildContext, name: str) -> None:
        """Add the interpreter, its library and its headers below `name`, without tests, caches and installed
        packages."""
        python = f"python{self.version}"
        context.add_file(f"{name}/bin/{python}", (self.prefix / "bin" / python).resolve())
        for library in sorted((self.prefix / "lib").glob(f"libpython{self.version}.so*")):
            context.add_file(f"{name}/lib/{library.name}", library.resolve())
        context.add_tree(f"{name}/lib/{python}", self.prefix / "lib" / python, _is_included)
        headers = self.prefix / "include" / python
        if headers.is_dir():
            context.add_tree(f"{name}/include/{python}", headers)


def find_python(version: str) -> LocalPython | None:
    """Return a CPython of this version that can be copied, or None.

    It is looked for on PATH and in the folders of pyenv and uv. If there is none, uv is asked to install one.
    """
    for executable in _candidates(version):
        found = _describe(executable, version)
        if found is not None:
            return found
    uv_program = uv.find_uv_bin()
    subprocess.run(
        [uv_program, "python", "install", "--no-bin", version], capture_output=True, check=False, timeout=600
    )
    listed = subprocess.run(
        [uv_program, "python", "find", "--managed-python", version],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return _describe(Path(listed.stdout.strip()), version) if listed.returncode == 0 else None


def _candidates(version: str) -> Iterator[Path]:
    name = f"python{version}"
    yield from (Path(folder) / name for folder in os.get_exec_path() if shutil.which(name, path=folder))
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    managed = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local/share/uv/python")
    for folder in (pyenv / "versions", managed):
        found = folder.glob(f"*{version}.*/bin/{name}")
        yield from sorted(found, key=lambda path: _numbers(path.parent.parent.name), reverse=True)
    yield Path("/usr/local/bin") / name


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _describe(executable: Path, version: str) -> LocalPython | None:
    """Return what the interpreter reports about itself, or None if it does not run or cannot be copied."""
    try:
        done = subprocess.run(
            [str(executable), "-I", "-c", _DESCRIBE], capture_output=True, text=True, check=True, timeout=30
        )
        prefix, full_version, implementation = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    folder = Path(prefix).resolve()
    usable = (
        implementation == "cpython" and full_version.rpartition(".")[0] == version and folder not in _SHARED_PREFIXES
    ) and (folder / "bin" / f"python{version}").is_file()
    return LocalPython(folder, version, full_version) if usable else None


def _is_included(relative: str) -> bool:
    path = PurePosixPath(relative)
    return not (_EXCLUDED & set(path.parts)) and path.suffix not in {".a", ".pyc"}
