"""What a reader finds in an output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sandbox.domain.evidence import FailureEvidence

#: Lines of an excerpt; of a longer one the beginning and the end are shown.
MAX_LINES = 24
MAX_LINE = 500


@dataclass(frozen=True, slots=True)
class Cause:
    """The reason of a failure."""

    #: The lines of the output that give the reason.
    lines: tuple[str, ...]
    #: The index of the line after the last of them: of several causes the last one is the reason.
    end: int
    evidence: FailureEvidence
    #: The next step for people. Empty if none is certain to be right.
    hint: str = ""

    @property
    def excerpt(self) -> str:
        """The lines as text, bounded."""
        return "\n".join(line[:MAX_LINE] for line in bounded(self.lines))


#: Finds the cause in lines without escape sequences. The second argument is the role's folder in the container.
Reader = Callable[[Sequence[str], str], Cause | None]


def bounded(lines: Sequence[str]) -> list[str]:
    """The lines without blank ones at both ends; the middle of many is left out."""
    first = next((index for index, line in enumerate(lines) if line.strip()), len(lines))
    last = next((index for index in range(len(lines), first, -1) if lines[index - 1].strip()), first)
    kept = list(lines[first:last])
    return kept if len(kept) <= MAX_LINES else [*kept[: MAX_LINES // 2], "…", *kept[-MAX_LINES // 2 :]]


def project_path(path: str, root: str) -> str | None:
    """The path relative to the role's folder, if it is a file of the project and not of its dependencies."""
    if any(part in path for part in ("/node_modules/", "/.venv/", "/site-packages/", "/lib/python")) or path[:1] in "<":
        return None
    if path.startswith("/"):
        return path.removeprefix(root).lstrip("/") if path.startswith(f"{root}/") else None
    return path.removeprefix("./")
