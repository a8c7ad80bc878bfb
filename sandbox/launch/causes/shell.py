"""What shells and `env` print when a command cannot be run, and what the system refuses."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sandbox.domain.evidence import FailureCause, FailureEvidence
from sandbox.launch.causes.cause import Cause

_SHELL = r"^(?:\S*/)?(?:sh|bash|dash|zsh)(?:: (?:line )?\d+)?: "
_CARRIAGE_RETURN = re.compile(
    rf"{_SHELL}(?P<file>\S+?): \S+(?:\^M|\\r|\r): bad interpreter|[‘'\"](?P<program>[\w./-]+)(?:\\r|\^M|\r)[’'\"]"
    r"|\$'(?:[^']*)\\r'"
)
_NOT_FOUND = re.compile(
    # The second is what bash says of a script whose first line names a program that does not exist.
    rf"{_SHELL}(?P<program>[^\s:]+): (?:(?:command )?not found|cannot execute: required file not found)$"
    r"|^(?:/usr/bin/)?env: [‘'\"]?(?P<program2>[^\s‘’'\":]+)[’'\"]?: No such file or directory$"
)
_NO_FILE = re.compile(
    rf"{_SHELL}(?P<file>[^\s:]+): No such file or directory$"
    r"|^python3?: can't open file '(?P<file2>[^']+)'"
)
_DENIED = re.compile(rf"{_SHELL}(?P<file>[^\s:]+): Permission denied$")


def read_shell(lines: Sequence[str], root: str) -> Cause | None:
    """The last line with which a shell says that a command cannot be run."""
    for index in range(len(lines) - 1, -1, -1):
        evidence, hint = _read_line(lines[index], root)
        if evidence is not None:
            return Cause((lines[index],), index + 1, evidence, hint)
    return None


def read_disk_full(lines: Sequence[str], root: str) -> Cause | None:  # noqa: ARG001 - a `Reader`
    """The last line that says that the disk is full, in the system's own words."""
    for index in range(len(lines) - 1, -1, -1):
        if "No space left on device" in lines[index]:
            return Cause((lines[index],), index + 1, FailureEvidence(cause=FailureCause.DISK_FULL))
    return None


def _read_line(line: str, root: str) -> tuple[FailureEvidence | None, str]:
    if match := _CARRIAGE_RETURN.search(line):
        file = match["file"]
        return windows_line_ends(_relative(file, root) if file else None)
    if match := _NOT_FOUND.match(line):
        program = match["program"] or match["program2"]
        if "/" in program:
            file = _relative(program, root)
            return FailureEvidence(tool="shell", cause=FailureCause.MISSING_FILE, file=file), ""
        evidence = FailureEvidence(tool="shell", cause=FailureCause.MISSING_PROGRAM, program=program)
        return evidence, f"The image has no program {program}: add the package that contains it to the dependencies."
    if match := _NO_FILE.match(line):
        file = _relative(match["file"] or match["file2"], root)
        return FailureEvidence(
            tool="shell", cause=FailureCause.MISSING_FILE, file=file
        ), f"Upload {file}, or correct its name."
    if match := _DENIED.match(line):
        file = _relative(match["file"], root)
        hint = f"Make it executable (chmod +x {file}), or start it by its interpreter."
        return FailureEvidence(tool="shell", cause=FailureCause.PERMISSION_DENIED, file=file), hint
    return None, ""


def windows_line_ends(file: str | None) -> tuple[FailureEvidence, str]:
    """The evidence and the hint for a script with carriage returns."""
    evidence = FailureEvidence(tool="shell", cause=FailureCause.WINDOWS_LINE_ENDS, file=file)
    hint = (
        f"{file or 'A script'} has the line ends of Windows, so its first line names no program. Turn them with "
        f"sed -i 's/\\r$//' {file or 'FILE'}, and keep them with *.sh text eol=lf in .gitattributes."
    )
    return evidence, hint


def _relative(path: str, root: str) -> str:
    return path.removeprefix(f"{root}/").removeprefix("./")
