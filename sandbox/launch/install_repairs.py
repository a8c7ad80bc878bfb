"""Second attempts at an install that failed for a reason for which the ecosystem has a usual remedy.

A lock file that does not fit its manifest and a project that cannot be built as a package are frequent in code that
people bring. A plain install, or one of the dependencies alone, gives an app that runs. Only the workspace is changed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Repair:
    """A remedy: if the output of a command that contains `old` matches `cause`, the command runs again with `new`."""

    old: str
    new: str
    cause: re.Pattern[str]
    reason: str


_BUILD_FAILED = re.compile(r"Failed to build|build backend returned an error|Multiple top-level packages")
_OUT_OF_STEP = "the lock file does not fit the manifest"
_NO_PACKAGE = "the project itself cannot be built as a package: only its dependencies are installed"

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
    Repair(
        "yarn install --frozen-lockfile",
        "yarn install",
        re.compile(r"lockfile needs to be updated"),
        _OUT_OF_STEP,
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
)


@dataclass(frozen=True, slots=True)
class SecondAttempt:
    """The command that is run in place of one that failed, and why, as part of a sentence."""

    command: str
    reason: str


def second_attempt(command: str, lines: Sequence[str]) -> SecondAttempt | None:
    """Return what to run after `command` has failed with these last lines of output, or None."""
    for repair in _REPAIRS:
        if _contains(command, repair.old) and any(repair.cause.search(line) for line in lines):
            return SecondAttempt(command.replace(repair.old, repair.new, 1), repair.reason)
    return None


def _contains(command: str, words: str) -> bool:
    """Return whether the command contains these whole words."""
    return re.search(rf"(?<!\S){re.escape(words)}(?!\S)", command) is not None
