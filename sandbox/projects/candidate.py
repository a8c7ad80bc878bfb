"""What detectors hand back: a role, what would run it, and how it was recognised."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.domain.plan import RolePlan

PYTHON_RUNTIME = "python312"
NODE_RUNTIME = "node20"

BACKEND = "backend"
FRONTEND = "frontend"

STATIC = "static"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One app that was recognised. `role` is what it is called when nothing else says."""

    role: str
    plan: RolePlan
    #: Text of the file the app is made in, to see whether it serves another folder itself.
    entry_text: str = ""
