"""Runtimes: the kinds of container that there are.

Each folder of `runtimes/` that has a `Dockerfile` and a `runtime.toml` is one. Adding a folder adds a runtime.
"""

from __future__ import annotations

import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from sandbox.errors import Kind, NotFound, SandboxError

MANIFEST = "runtime.toml"
DOCKERFILE = "Dockerfile"

FileName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^/\\\x00]+$")]
Command = Annotated[str, StringConstraints(min_length=1, max_length=4000)]
DebianPackage = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]


class RuntimeInvalid(SandboxError):
    """A runtime's folder is incomplete or its manifest is wrong."""

    code = "runtime_invalid"
    kind = Kind.INVALID


class RuntimeUnknown(NotFound):
    """There is no runtime of this name."""

    code = "runtime_unknown"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LocalBase(_Section):
    """How to build an equivalent base image if no image registry answers: Debian bookworm with these additions."""

    packages: tuple[DebianPackage, ...] = Field((), description="Debian packages")
    python: str | None = Field(None, pattern=r"^3\.\d+$", description="Version of a CPython to copy from this machine")
    node: str | None = Field(None, pattern=r"^\d+(\.\d+){0,2}$", description="Version of Node.js, from its npm package")
    npm: str | None = Field(None, pattern=r"^\d+(\.\d+){0,2}$", description="Version of npm to install with it")


class BaseImage(_Section):
    image: str = Field(min_length=1, max_length=250, description="Image in a registry")
    local: LocalBase | None = Field(
        None, description="How to build it without a registry; None if that is not possible"
    )


class Detect(_Section):
    """How a project's folder is recognised as one for this runtime."""

    files: tuple[FileName, ...] = Field((), description="Names of files, any one of which is sufficient")


class Commands(_Section):
    """Default commands for projects of this runtime. They run in the role's folder."""

    install: Command | None = Field(None, description="Used if there is no file of a package manager")
    start: Command | None = None


class PackageManager(_Section):
    """How dependencies are installed if `file` exists in the role's folder."""

    name: str = Field(min_length=1, max_length=50)
    file: FileName
    install: Command


class Runtime(_Section):
    """A validated `runtime.toml`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_.-]{0,49}$", description="Must equal the folder's name")
    description: str = Field(min_length=1, max_length=200)
    language: str = Field(min_length=1, max_length=50)
    base: BaseImage
    detect: Detect = Detect()
    commands: Commands = Commands()
    package_managers: tuple[PackageManager, ...] = Field((), description="The first one whose file exists is used")
    verify: dict[Command, str] = Field(
        default_factory=dict,
        description="Commands, run as the unprivileged user, and the regular expression their output must match",
    )
    folder: Path = Field(exclude=True)

    @field_validator("verify")
    @classmethod
    def _patterns_compile(cls, value: dict[str, str]) -> dict[str, str]:
        for pattern in value.values():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        return value

    def install_command(self, files: set[str]) -> str | None:
        """Return the install command for a folder with these files, or None if there is nothing to install."""
        for manager in self.package_managers:
            if manager.file in files:
                return manager.install
        return self.commands.install

    @classmethod
    def load(cls, folder: Path) -> Runtime:
        """Read one folder. Raises RuntimeInvalid, whose message names the file and what is wrong with it."""
        manifest = folder / MANIFEST
        if not (folder / DOCKERFILE).is_file():
            raise RuntimeInvalid(f"Runtime {folder.name} has no {DOCKERFILE}", hint=f"Add {folder / DOCKERFILE}.")
        try:
            content = tomllib.loads(manifest.read_text("utf-8"))
            runtime = cls.model_validate({**content, "folder": folder})
        except FileNotFoundError as error:
            raise RuntimeInvalid(f"Runtime {folder.name} has no {MANIFEST}", hint=f"Add {manifest}.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RuntimeInvalid(
                f"{manifest} is not TOML: {error}", hint="Correct it at the position given."
            ) from error
        except ValidationError as error:
            causes = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise RuntimeInvalid(
                f"{manifest} is not a valid runtime manifest: {causes}", hint="Correct the keys."
            ) from error
        if runtime.name != folder.name:
            raise RuntimeInvalid(
                f"{manifest} has the name {runtime.name}, but its folder is {folder.name}",
                hint="Give both the same name.",
            )
        return runtime


def default_folder() -> Path:
    """Return the copy inside the installed wheel if there is one, else `runtimes/` of the source tree."""
    package = Path(__file__).resolve().parent.parent
    in_wheel = package / "_runtimes"
    return in_wheel if in_wheel.is_dir() else package.parent / "runtimes"


class RuntimeCatalog:
    """All runtimes. The folders are read at the first access and then cached, so a new one is found after a restart."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()

    @cached_property
    def _runtimes(self) -> dict[str, Runtime]:
        if not self.folder.is_dir():
            raise RuntimeInvalid(
                f"The folder of runtimes, {self.folder}, does not exist", hint="Reinstall the service."
            )
        folders = sorted(f for f in self.folder.iterdir() if f.is_dir() and not f.name.startswith((".", "_")))
        return {folder.name: Runtime.load(folder) for folder in folders}

    def list(self) -> list[Runtime]:
        """Return every runtime, sorted by name. Raises RuntimeInvalid if a folder cannot be used."""
        return list(self._runtimes.values())

    def get(self, name: str) -> Runtime:
        """Return the runtime of this name. Raises RuntimeUnknown."""
        runtime = self._runtimes.get(name)
        if runtime is None:
            known = ", ".join(self._runtimes) or "none"
            raise RuntimeUnknown(f"There is no runtime {name[:60]!r}", hint=f"Known runtimes: {known}.")
        return runtime
