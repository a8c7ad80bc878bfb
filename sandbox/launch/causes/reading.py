"""Chooses among the causes that the readers find, and looks into the files that they name."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import replace

from sandbox.domain.evidence import FailureCause, FailureEvidence
from sandbox.engine.guest import Guest
from sandbox.errors import GuestError
from sandbox.launch.causes.cause import Cause, Reader, bounded
from sandbox.launch.causes.node import read_compiler, read_node
from sandbox.launch.causes.node_packages import read_npm, read_pnpm, read_yarn
from sandbox.launch.causes.python import read_python
from sandbox.launch.causes.python_packages import read_pip, read_poetry, read_uv
from sandbox.launch.causes.shell import read_disk_full, read_shell, windows_line_ends
from sandbox.launch.output import plain

_READERS: tuple[Reader, ...] = (
    read_disk_full, read_python, read_node, read_compiler, read_shell, read_uv, read_pip, read_poetry, read_npm,
    read_pnpm, read_yarn,
)  # fmt: skip
#: Lines that are shown of an output in which no cause was recognised.
_LAST_LINES = 12
#: After more lines than this an error is an earlier one, which the command survived.
_MOST_AFTER = 30
_FIRST_BYTES = 256


def find_cause(output: Sequence[str], root: str) -> Cause:
    """The reason of a failure: of all that were recognised the one printed last, else the end of the output.

    `root` is the role's folder in the container.
    """
    lines = [plain(line).rstrip() for line in output]
    found = [cause for reader in _READERS if (cause := reader(lines, root)) is not None]
    last = max(found, key=lambda cause: cause.end, default=None)
    if last is not None and sum(bool(line.strip()) for line in lines[last.end :]) <= _MOST_AFTER:
        return last
    printed = [line for line in dict.fromkeys(lines) if line.strip()]
    return Cause(tuple(bounded(printed[-_LAST_LINES:])), len(lines), FailureEvidence())


async def explain(guest: Guest, output: Sequence[str], root: str) -> Cause:
    """As `find_cause`. A script that a shell cannot find although it is there is looked into: its first line may name
    a program that does not exist, because of the line ends of Windows."""
    cause = find_cause(output, root)
    file = cause.evidence.file
    if cause.evidence.cause is not FailureCause.MISSING_FILE or file is None or cause.evidence.tool != "shell":
        return cause
    beginning = await _beginning(guest, posixpath.join(root, file))
    if beginning is None:
        return cause if cause.hint else replace(cause, hint=f"Upload {file}, or correct its name.")
    first = beginning.split(b"\n")[0]
    if first.endswith(b"\r"):
        evidence, hint = windows_line_ends(file)
        return replace(cause, evidence=evidence, hint=hint)
    if first.startswith(b"#!"):
        program = first[2:].strip().decode("utf-8", "replace").split(" ")[0]
        evidence = replace(cause.evidence, cause=FailureCause.MISSING_PROGRAM, program=program)
        return replace(cause, evidence=evidence, hint=f"{file} begins with #!{program}, which the image does not have.")
    return cause


async def _beginning(guest: Guest, path: str) -> bytes | None:
    """The first bytes of a file; None if it cannot be read."""
    content = b""
    try:
        async for piece in await guest.read_file(path):
            content += piece
            if len(content) >= _FIRST_BYTES:
                break
    except GuestError as error:
        if error.code == "agent_unreachable":
            raise
        return None
    return content
