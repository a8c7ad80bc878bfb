"""The result of a detector: an app that it recognised."""

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
    """An app that was recognised. `role` is its role unless the name of its folder implies another."""

    role: str
    plan: RolePlan
    #: Source of the file that creates the app. Shows whether the app serves the files of another folder.
    entry_text: str = ""
