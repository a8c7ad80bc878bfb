"""A CPython of this machine that can be copied into an image."""

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

_ASK = (
    "import json, platform, sys; "
    "print(json.dumps([sys.base_prefix, platform.python_version(), sys.implementation.name]))"
)
_LEFT_OUT = {"__pycache__", "test", "tests", "idlelib", "turtledemo", "tkinter", "site-packages", "EXTERNALLY-MANAGED"}
#: Distributions spread theirs over /usr, mixed with everything else: such a one cannot be copied.
_SPREAD = {Path("/"), Path("/usr")}


@dataclass(frozen=True, slots=True)
class LocalPython:
    prefix: Path
    version: str
    full_version: str

    def add_to(self, context: BuildContext, name: str) -> None:
        """Add the interpreter, its library and headers below `name`, without tests, caches and installed packages."""
        python = f"python{self.version}"
        context.add_file(f"{name}/bin/{python}", (self.prefix / "bin" / python).resolve())
        for library in sorted((self.prefix / "lib").glob(f"libpython{self.version}.so*")):
            context.add_file(f"{name}/lib/{library.name}", library.resolve())
        context.add_tree(f"{name}/lib/{python}", self.prefix / "lib" / python, _is_wanted)
        headers = self.prefix / "include" / python
        if headers.is_dir():
            context.add_tree(f"{name}/include/{python}", headers)


def find_python(version: str) -> LocalPython | None:
    """A copyable CPython of this version: on PATH, of pyenv, of uv; else one that uv can get; else None. Blocks."""
    for executable in _candidates(version):
        found = _ask(executable, version)
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
    return _ask(Path(listed.stdout.strip()), version) if listed.returncode == 0 else None


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


def _ask(executable: Path, version: str) -> LocalPython | None:
    """What the interpreter says of itself; None if it does not run, or is not one that can be copied."""
    try:
        said = subprocess.run(
            [str(executable), "-I", "-c", _ASK], capture_output=True, text=True, check=True, timeout=30
        )
        prefix, full_version, implementation = json.loads(said.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    folder = Path(prefix).resolve()
    usable = (
        implementation == "cpython" and full_version.rpartition(".")[0] == version and folder not in _SPREAD
    ) and (folder / "bin" / f"python{version}").is_file()
    return LocalPython(folder, version, full_version) if usable else None


def _is_wanted(relative: str) -> bool:
    path = PurePosixPath(relative)
    return not (_LEFT_OUT & set(path.parts)) and path.suffix not in {".a", ".pyc"}
