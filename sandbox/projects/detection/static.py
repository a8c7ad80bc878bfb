"""Recognises static pages, which need no server of their own."""

from __future__ import annotations

from sandbox.domain.plan import RolePlan
from sandbox.projects.detection.candidate import FRONTEND, PYTHON_RUNTIME, STATIC, Candidate
from sandbox.projects.source import Folder

_PORT = 8000
#: Used if the back end has the first one: the page may ask it at localhost:8000.
_OTHER_PORT = 8080
_BUILT_FOLDERS = ("public", "dist", "build", "out", "site", "www", "static", "html", "docs")


def detect_static(folder: Folder) -> Candidate | None:
    """Return the candidate for a folder that contains an `index.html`, or None."""
    if not folder.has("index.html"):
        return None
    return Candidate(FRONTEND, _plan(folder.path, _PORT))


def beside(front: Candidate, taken: int | None) -> Candidate:
    """Return the candidate for static pages on a port that the back end does not use."""
    return Candidate(FRONTEND, _plan(front.plan.root, _OTHER_PORT)) if front.plan.port == taken else front


def _plan(root: str, port: int) -> RolePlan:
    return RolePlan(
        runtime=PYTHON_RUNTIME,
        root=root,
        framework=STATIC,
        start=f"python3 -m http.server {port} --bind 0.0.0.0",
        port=port,
    )


def detect_built(folder: Folder) -> Candidate | None:
    """Return the candidate for a page in one of the usual output folders of build tools, or None."""
    found = (detect_static(folder.inner(name)) for name in _BUILT_FOLDERS if name in folder.folders)
    return next((candidate for candidate in found if candidate), None)
