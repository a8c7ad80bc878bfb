"""Planning a launch takes time in proportion to the project's size: twice the project, about twice the steps."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from sandbox.domain.plan import LaunchPlan
from sandbox.engine.runtimes import RuntimeCatalog
from sandbox.projects.archive import ArchiveKind
from sandbox.projects.archive_readers import ArchiveLimits
from sandbox.projects.preparing import PreparedProject, prepare
from sandbox.projects.project import PlanProblem
from sandbox.projects.toml import TomlInvalid, load_toml
from tests.steps import LINEAR, steps

APP = b"from fastapi import FastAPI\napp = FastAPI()\n"
Files = Mapping[str, bytes]


def imports_and_files(size: int) -> Files:
    imports = b"import " + ",".join(f"q{number}" for number in range(size)).encode() + b"\n"
    return {f"d/x{number}.txt": b"" for number in range(4 * size)} | {
        "a/b/c/main.py": imports + APP,
        "requirements.txt": b"fastapi\n",
    }


def apps_in_folders(size: int) -> Files:
    return {f"d{number}/index.html": b"" for number in range(size)}


def manifests_in_folders(size: int) -> Files:
    return {f"d{number}/requirements.txt": b"" for number in range(size)} | {"main.py": APP}


def environments(size: int) -> Files:
    return {f"d{number}/pyvenv.cfg": b"" for number in range(size)} | {"main.py": APP}


def folder_in_folder(size: int) -> Files:
    return {"a/" * (size // 2) + f"f{number}.txt": b"" for number in range(size)}


def included_requirements(size: int) -> Files:
    chain = {f"r{number}.txt": f"-r r{number + 1}.txt".encode() for number in range(size)}
    return chain | {"main.py": APP, "requirements.txt": b"-r r0.txt"}


def conditions(size: int) -> Files:
    return {"main.py": b"if 1:pass\n" + b"elif 1:pass\n" * size + APP}


def prepared(folder: Path, files: Files) -> PreparedProject:
    upload = folder / "upload.tar.gz"
    with tarfile.open(upload, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    target = folder / "project.tar.gz"
    return prepare(upload, ArchiveKind.TAR_GZ, ArchiveLimits(64 << 20, 20_000), target, RuntimeCatalog().list())


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (imports_and_files, 150),
        (apps_in_folders, 200),
        (manifests_in_folders, 400),
        (environments, 400),
        (folder_in_folder, 300),
        (included_requirements, 150),
        (conditions, 300),
    ],
)
def test_twice_the_project(tmp_path: Path, make: Callable[[int], Files], size: int) -> None:
    prepared(tmp_path, make(10))  # what is imported and compiled at the first call
    once, twice = (steps(partial(prepared, tmp_path, make(many))) for many in (size, 2 * size))
    assert twice < LINEAR * once


@pytest.mark.parametrize(
    "files",
    [
        conditions(1500),
        included_requirements(1500),
        {"pyproject.toml": b"a." * 4000 + b"a=1\n", "main.py": APP},
        {"sandbox.toml": b"a." * 4000 + b"a=1\n"},
        {"sandbox.toml": b'[a]\nruntime="python312"\nstart="x\\u0000y"'},
        {"sandbox.toml": b"x=" + b"[" * 20_000},
        {"package.json": b"[" * 100_000},
        {"main.py": b"x=" + b"(" * 5000 + b")" * 5000 + b"\n" + APP},
        {"main.py": b"x=" + b"-" * 50_000 + b"1\n" + APP},
        {"main.py": b"x=" + b"int(" * 90 + b"1" + b")" * 90 + b"\n" + APP},
        {"main.py": b"x=1" + b".a" * 20_000 + b"\n" + APP},
    ],
)
def test_an_intricate_project_has_a_plan_or_a_problem(tmp_path: Path, files: Files) -> None:
    assert isinstance(prepared(tmp_path, files).plan, LaunchPlan | PlanProblem)


def test_toml_with_keys_of_many_parts_is_refused() -> None:
    hidden = "x = {a = '''\n\" ''', " + "b." * 4000 + "b = '\"'}"
    for text in ("a." * 4000 + "a = 1", "[" + '"a".' * 4000 + "a]", "x = {" + "a." * 4000 + "a = 1}", hidden):
        with pytest.raises(TomlInvalid, match="dots"):
            load_toml(text)
    plain = f'a.b.c = "{"." * 4000}" # a comment'
    assert load_toml(plain) == {"a": {"b": {"c": "." * 4000}}}
