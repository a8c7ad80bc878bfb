"""Recognises static pages, which need no server of their own."""

from __future__ import annotations

from sandbox.domain.plan import RolePlan
from sandbox.projects.detection.candidate import FRONTEND, PYTHON_RUNTIME, STATIC, Candidate
from sandbox.projects.source import Folder

_PORT = 8000
_BUILT_FOLDERS = ("public", "dist", "build", "out", "site", "www", "static", "html", "docs")


def detect_static(folder: Folder) -> Candidate | None:
    """Return the candidate for a folder that contains an `index.html`, or None."""
    if not folder.has("index.html"):
        return None
    plan = RolePlan(
        runtime=PYTHON_RUNTIME,
        root=folder.path,
        framework=STATIC,
        start=f"python3 -m http.server {_PORT} --bind 0.0.0.0",
        port=_PORT,
    )
    return Candidate(FRONTEND, plan)


def detect_built(folder: Folder) -> Candidate | None:
    """Return the candidate for a page in one of the usual output folders of build tools, or None."""
    found = (detect_static(folder.inner(name)) for name in _BUILT_FOLDERS if name in folder.folders)
    return next((candidate for candidate in found if candidate), None)
