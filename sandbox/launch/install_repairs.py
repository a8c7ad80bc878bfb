"""Second attempts at an install that failed for a reason for which the ecosystem has a usual remedy.

A lock file that does not fit its manifest and a project that cannot be built as a package are frequent in code that
people bring. A plain install, or one of the dependencies alone, gives an app that runs. Only the workspace is changed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.projects.detection.python_dependencies import VENV, package_of


@dataclass(frozen=True, slots=True)
class Repair:
    """A remedy: if the output of a command that contains `old` matches `cause`, the command runs again with `new`,
    followed by `then` after the arguments of `old`. `{package}` in `new` is the package of the `module` that `cause`
    has found."""

    old: str
    new: str
    cause: re.Pattern[str]
    reason: str
    then: str = ""


_BUILD_FAILED = re.compile(r"Failed to build|build backend returned an error|Multiple top-level packages")
_OUT_OF_STEP = "the lock file does not fit the manifest"
_OTHER_PYTHON = (
    "the project asks for another version of Python: its dependencies are installed for the one that there is"
)
_NO_PACKAGE = "the project itself cannot be built as a package: only its dependencies are installed"

_NO_VERSION = re.compile(r"Missing version in workspace at")
_NOT_LINKED = "Yarn 1 does not link members of a workspace that have no version, and npm does: npm installs them"

_REPAIRS = (
    Repair(
        "npm ci",
        "npm install",
        re.compile(r"npm (?:error|ERR!).*(?:can only install packages when|\bEUSAGE\b|Missing: .* from lock file)"),
        _OUT_OF_STEP,
    ),
    Repair(
        "npm ci",
        "npm install --no-package-lock",
        re.compile(r"npm (?:error|ERR!).*(?:\bEBADPLATFORM\b|\bETARGET\b|\bEINTEGRITY\b)"),
        "the lock file names packages that cannot be installed here",
    ),
    Repair(
        "npm install",
        "npm install --force",
        re.compile(r"npm (?:error|ERR!) (?:code )?EBADPLATFORM"),
        "the project asks for packages of another system: they are installed all the same",
    ),
    Repair(
        "npm install",
        "npm install --legacy-peer-deps",
        re.compile(r"npm (?:error|ERR!) (?:code )?ERESOLVE"),
        "peer dependencies contradict each other: they are left out of account",
    ),
    Repair(
        "pnpm install --frozen-lockfile",
        "pnpm install --no-frozen-lockfile",
        re.compile(r"ERR_PNPM_(?:OUTDATED_LOCKFILE|LOCKFILE_|BROKEN_LOCKFILE|NO_LOCKFILE|FROZEN_LOCKFILE)"),
        _OUT_OF_STEP,
    ),
    Repair("yarn install --frozen-lockfile", "npm install", _NO_VERSION, _NOT_LINKED),
    Repair("yarn install", "npm install", _NO_VERSION, _NOT_LINKED),
    Repair(
        "yarn install --frozen-lockfile",
        "yarn install",
        re.compile(r"lockfile needs to be updated"),
        _OUT_OF_STEP,
    ),
    Repair(
        "yarn install",
        "yarn install --ignore-engines",
        re.compile(r"The engine \"node\" is incompatible with this module"),
        "the project asks for another version of Node.js: it is installed all the same",
    ),
    Repair(
        "uv sync --frozen",
        f"{VENV} && uv export --quiet --frozen --no-emit-project -o .venv/requirements.txt",
        re.compile(r"incompatible with the project's Python requirement"),
        _OTHER_PYTHON,
        " && uv pip install -r .venv/requirements.txt",
    ),
    Repair(
        "-e .",
        "-r pyproject.toml",
        re.compile(r"current Python version \([\d.]+\) does not satisfy Python"),
        _OTHER_PYTHON,
    ),
    Repair(
        "uv sync --frozen",
        "uv sync --frozen --no-install-project",
        _BUILD_FAILED,
        _NO_PACKAGE,
    ),
    Repair(
        "uv sync --frozen",
        "uv sync",
        re.compile(r"[Ff]ailed to parse `?uv\.lock|lockfile|lock file"),
        _OUT_OF_STEP,
    ),
    Repair(
        "poetry export",
        "poetry lock && uvx --with poetry-plugin-export poetry export",
        re.compile(r"poetry\.lock"),
        _OUT_OF_STEP,
    ),
    Repair("-e .", "-r pyproject.toml", _BUILD_FAILED, _NO_PACKAGE),
    Repair(
        "uv pip install --editable .",
        "uv pip install setuptools wheel {package} && uv pip install --no-build-isolation --editable .",
        re.compile(r"ModuleNotFoundError: No module named '(?P<module>\w{1,100})"),
        "setup.py imports a package that is not there yet: it is installed first",
    ),
)


@dataclass(frozen=True, slots=True)
class SecondAttempt:
    """The command that is run in place of one that failed, and why, as part of a sentence."""

    command: str
    reason: str


def second_attempt(command: str, lines: Sequence[str]) -> SecondAttempt | None:
    """Return what to run after `command` has failed with these last lines of output, or None."""
    for repair in _REPAIRS:
        if not _contains(command, repair.old):
            continue
        match = next(filter(None, map(repair.cause.search, lines)), None)
        if match is not None:
            new = repair.new.replace("{package}", package_of(match.groupdict().get("module", "")))
            before, _, after = command.partition(repair.old)
            arguments, separator, rest = after.partition(" && ")
            return SecondAttempt(f"{before}{new}{arguments}{repair.then}{separator}{rest}", repair.reason)
    return None


def _contains(command: str, words: str) -> bool:
    """Return whether the command contains these whole words."""
    return re.search(rf"(?<!\S){re.escape(words)}(?!\S)", command) is not None
