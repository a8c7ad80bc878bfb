"""Names of the processes that a run starts in a container."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID


class ProcessKind(StrEnum):
    """What a process is for. One run starts at most one process of each kind in each container."""

    INSTALL = "install"
    #: The second attempt at an install.
    REINSTALL = "reinstall"
    APP = "app"


def process_name(kind: ProcessKind, run_id: UUID) -> str:
    """The name under which the guest agent knows the process.

    The name contains the run, so that a resumed run finds its own process and a new run does not mistake an older one
    for its own.
    """
    return f"{kind}-{run_id.hex[:12]}"


def is_app(name: str) -> bool:
    """Whether a process of this name is an app, of any run."""
    return name.startswith(f"{ProcessKind.APP}-")
