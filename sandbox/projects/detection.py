"""What a project is, found out from its files alone: which apps there are, and how each is installed and started."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from sandbox.domain.plan import LaunchPlan, RolePlan
from sandbox.errors import InvalidInput
from sandbox.projects.candidate import BACKEND, FRONTEND, STATIC, Candidate
from sandbox.projects.node_projects import detect_node
from sandbox.projects.python_install import MANIFESTS as PYTHON_MANIFESTS
from sandbox.projects.python_projects import detect_python
from sandbox.projects.source import Folder, ProjectSource
from sandbox.projects.static_projects import detect_built, detect_static

_FRONT_NAMES = ("frontend", "front-end", "front", "client", "web", "webapp", "ui", "app-ui", "www")
_BACK_NAMES = ("backend", "back-end", "back", "server", "api", "service")
#: Folders that hold apps and are none themselves.
_HOLDERS = ("", "apps/", "packages/", "services/")
_MANIFESTS = (*PYTHON_MANIFESTS, "package.json", "manage.py")
_GENERIC_PORT = 8080

LOOKED_FOR = (
    "package.json with a dev or start script, server.js or index.js; manage.py; a Python file that makes a FastAPI, "
    "Flask or Streamlit app; index.html; at the top, in frontend/ and backend/, or in one folder"
)
EXAMPLE = """[backend]
runtime = "python312"
root = "."
install = "uv venv --allow-existing && uv pip install -r requirements.txt"
start = "uvicorn main:app --host 0.0.0.0 --port 8000"
port = 8000
health = "/"
"""


class PlanUndetected(InvalidInput):
    """No app was recognised in the project, or more than can be told apart."""

    code = "plan_undetected"

    def __init__(self, message: str) -> None:
        super().__init__(message, hint=f"Say how it runs in a file sandbox.toml at the top of the project:\n{EXAMPLE}")


class RuntimeRules(Protocol):
    """What a runtime's own manifest says of the projects it is for; `engine.runtimes.Runtime` is one."""

    @property
    def name(self) -> str: ...

    @property
    def detect(self) -> DetectRule: ...

    @property
    def commands(self) -> DefaultCommands: ...

    def install_command(self, files: set[str]) -> str | None: ...


class DetectRule(Protocol):
    @property
    def files(self) -> tuple[str, ...]: ...


class DefaultCommands(Protocol):
    @property
    def start(self) -> str | None: ...


def detect(source: ProjectSource, runtimes: Iterable[RuntimeRules]) -> LaunchPlan:
    """The plan of a project without `sandbox.toml`. Raises `PlanUndetected`. Reads files: call it in a thread."""
    rules = list(runtimes)
    known = {rule.name for rule in rules}
    notes: list[str] = []
    found = _find(source, rules, notes)
    found = {role: candidate for role, candidate in found.items() if candidate.plan.runtime in known}
    if not found:
        said = "".join(f"; {note}" for note in notes[:5])
        raise PlanUndetected(f"nothing in the project says how it is started. Looked for {LOOKED_FOR}{said}")
    return LaunchPlan(roles={role: found[role].plan for role in sorted(found)})


def detect_role(source: ProjectSource, root: str, role: str, runtimes: Iterable[RuntimeRules]) -> RolePlan | None:
    """What one folder of a project is on its own; of two apps in it, the one that goes by the name `role`."""
    found = _in_folder(Folder(source, root), list(runtimes))
    candidate = found.get(role) or next(iter(found.values()), None)
    return candidate.plan if candidate else None


def _find(source: ProjectSource, rules: list[RuntimeRules], notes: list[str]) -> dict[str, Candidate]:
    top = Folder(source, notes=notes)
    front = _named(top, _FRONT_NAMES, FRONTEND, rules)
    back = _named(top, _BACK_NAMES, BACKEND, rules)
    if front is None or back is None:
        front, back = _with_top(top, front, back, rules)
    if front is None and back is None:
        built = detect_built(top)
        return {FRONTEND: built} if built else _anywhere(top, rules)
    if front and back and front.plan.framework == STATIC and _serves(back, front):
        front = None
    return {role: candidate for role, candidate in ((FRONTEND, front), (BACKEND, back)) if candidate}


def _in_folder(folder: Folder, rules: list[RuntimeRules]) -> dict[str, Candidate]:
    """The apps of one folder, by role."""
    python = detect_python(folder)
    node = detect_node(folder)
    found = {candidate.role: candidate for candidate in python}
    # Beside a Python app a package.json counts if it is a user interface, not if it only holds tools.
    if node is not None and (not found or (node.role == FRONTEND and FRONTEND not in found)):
        found[node.role] = node
    if not found:
        other = detect_static(folder) or _by_rules(folder, rules)
        if other is not None:
            found[other.role] = other
    return found


def _by_rules(folder: Folder, rules: list[RuntimeRules]) -> Candidate | None:
    """By the manifests of the runtimes beyond those that have detectors of their own."""
    for rule in rules:
        if rule.name.startswith(("python", "node")) or rule.commands.start is None:
            continue
        if not folder.names.isdisjoint(rule.detect.files):
            plan = RolePlan(
                runtime=rule.name,
                root=folder.path,
                install=rule.install_command(set(folder.names)),
                start=rule.commands.start,
                port=_GENERIC_PORT,
                framework=rule.name,
            )
            return Candidate(BACKEND, plan)
    return None


def _named(top: Folder, names: tuple[str, ...], role: str, rules: list[RuntimeRules]) -> Candidate | None:
    """The app in the first folder that goes by one of these names, under that role."""
    top_is_installed = not top.names.isdisjoint(PYTHON_MANIFESTS)
    for holder in _HOLDERS:
        for name in names:
            folder = top.inner(f"{holder}{name}")
            if not folder.files:
                continue
            found = _in_folder(folder, rules)
            candidate = found.get(role) or next(iter(found.values()), None)
            if candidate is None:
                continue
            # Python below a top that has the manifest is part of the top's app, and imported from there.
            is_part = candidate.plan.runtime.startswith("python") and candidate.plan.framework != STATIC
            if (
                is_part
                and folder.names.isdisjoint(_MANIFESTS)
                and (top_is_installed or _is_app(top, f"{holder}{name}"))
            ):
                continue
            return candidate
    return None


def _is_app(top: Folder, without: str) -> bool:
    rest = Folder(top.source, top.path, frozenset({without}))
    return any(candidate.role == BACKEND for candidate in detect_python(rest))


def _with_top(
    top: Folder, front: Candidate | None, back: Candidate | None, rules: list[RuntimeRules]
) -> tuple[Candidate | None, Candidate | None]:
    """Let the top folder, without what is in the named ones, be what is still missing."""
    taken = frozenset(candidate.plan.root for candidate in (front, back) if candidate)
    found = _in_folder(Folder(top.source, top.path, taken, top.notes), rules)
    return front or found.get(FRONTEND), back or found.get(BACKEND)


def _serves(back: Candidate, front: Candidate) -> bool:
    """Whether the back end hands out the pages itself: it names their folder in a string."""
    name = front.plan.root.rpartition("/")[2]
    return any(mark in back.entry_text for mark in (f"{name}'", f'{name}"', f"{name}/"))


def _anywhere(top: Folder, rules: list[RuntimeRules]) -> dict[str, Candidate]:
    """One app in any folder, at most two deep, or one of each role."""
    folders = sorted(
        {path.rpartition("/")[0] for path in top.files if _marks_app(path)}, key=lambda path: (path.count("/"), path)
    )
    apps: dict[str, list[Candidate]] = {}
    taken: list[str] = []
    for path in folders:
        if path.startswith(tuple(f"{other}/" for other in taken)):
            continue
        found = _in_folder(top.inner(path), rules)
        if found:
            taken.append(path)
        for role, candidate in found.items():
            apps.setdefault(role, []).append(candidate)
    several = [candidate.plan.root for candidates in apps.values() if len(candidates) > 1 for candidate in candidates]
    if several:
        raise PlanUndetected(f"there are several apps and none says which is meant: {', '.join(several[:8])}")
    return {role: candidates[0] for role, candidates in apps.items()}


def _marks_app(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return bool(folder) and folder.count("/") <= 1 and name in (*_MANIFESTS, "index.html", "main.py", "app.py")
