"""Chooses among the causes that the readers find. Runs in worker processes (`finding.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from sandbox.domain.evidence import FailureEvidence
from sandbox.launch.causes.cause import Cause, Reader, bounded
from sandbox.launch.causes.node import read_compiler, read_node
from sandbox.launch.causes.node_packages import read_npm, read_pnpm, read_yarn
from sandbox.launch.causes.python import read_python
from sandbox.launch.causes.python_packages import read_pip, read_poetry, read_uv
from sandbox.launch.causes.shell import read_disk_full, read_shell
from sandbox.launch.output import plain

_READERS: tuple[Reader, ...] = (
    read_disk_full, read_python, read_node, read_compiler, read_shell, read_uv, read_pip, read_poetry, read_npm,
    read_pnpm, read_yarn,
)  # fmt: skip
#: Lines that are shown of an output in which no cause was recognised.
_LAST_LINES = 12
#: After more lines than this an error is an earlier one, which the command survived.
_MOST_AFTER = 30


def find_cause(output: Sequence[str], root: str) -> Cause:
    """The reason of a failure: of all that were recognised the one printed last, else the end of the output.

    `root` is the role's folder in the container.
    """
    lines = [plain(line).rstrip() for line in output]
    found = [cause for reader in _READERS if (cause := reader(lines, root)) is not None]
    last = max(found, key=lambda cause: cause.end, default=None)
    if last is not None and sum(bool(line.strip()) for line in lines[last.end :]) <= _MOST_AFTER:
        return last
    return end_of(lines)


def end_of(output: Sequence[str]) -> Cause:
    """The last lines of an output, as the cause of a failure of which no more is known."""
    printed = [line for line in dict.fromkeys(plain(line).rstrip() for line in output) if line]
    return Cause(tuple(bounded(printed[-_LAST_LINES:])), len(output), FailureEvidence())
