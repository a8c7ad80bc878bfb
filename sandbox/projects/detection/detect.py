"""Detects the apps of a whole project, from the apps of its folders."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from sandbox.domain.plan import LaunchPlan, RolePlan
from sandbox.errors import InvalidInput
from sandbox.projects.detection.candidate import BACKEND, FRONTEND, NODE_RUNTIME, STATIC, Candidate
from sandbox.projects.detection.node import detect_node, of_project
from sandbox.projects.detection.python import detect_notebooks, detect_python
from sandbox.projects.detection.python_dependencies import MANIFESTS as PYTHON_MANIFESTS
from sandbox.projects.detection.stated import detect_dockerfile, detect_procfile, detect_project_script, detect_readme
from sandbox.projects.detection.static import beside, detect_built, detect_static
from sandbox.projects.source import Folder, ProjectSource

_FRONT_NAMES = ("frontend", "front-end", "front", "client", "web", "webapp", "ui", "app-ui", "www")
_BACK_NAMES = ("backend", "back-end", "back", "server", "api", "service")
#: Folders whose subfolders are apps.
_PARENT_FOLDERS = ("", "apps/", "packages/", "services/")
_MANIFESTS = (*PYTHON_MANIFESTS, "package.json", "manage.py")
_GENERIC_PORT = 8080

#: The most findings that an error lists.
_NOTES = 20

SEARCHED_FILES = (
    "package.json with a script that starts a server, server.js or index.js; manage.py; a Python file that makes a web "
    "app; mkdocs.yml and conf.py; a Procfile; a Dockerfile's CMD; [project.scripts]; index.html; a command in the "
    "README; notebooks; at the top, in frontend/ and backend/, or in one folder"
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
    """No app was recognised in the project, or several that cannot be distinguished.

    `looked_at` are the files that were read, each with what it lacks for a launch.
    """

    code = "plan_undetected"

    def __init__(self, message: str, looked_at: Iterable[str] = ()) -> None:
        super().__init__(
            message,
            hint="Launch it with a plan in the request, which needs `runtime` and `start`, or describe how it runs in "
            f"a file sandbox.toml at the top of the project:\n{EXAMPLE}",
        )
        self.looked_at = tuple(looked_at)


class RuntimeRules(Protocol):
    """The detection rules in a runtime's manifest. `engine.runtimes.Runtime` implements this protocol."""

    @property
    def name(self) -> str: ...

    @property
    def detect(self) -> DetectRule: ...

    @property
    def commands(self) -> DefaultCommands: ...

    def install_command(self, files: set[str]) -> str | None: ...


class DetectRule(Protocol):
    """Names of files that identify a project of the runtime."""

    @property
    def files(self) -> tuple[str, ...]: ...


class DefaultCommands(Protocol):
    """Commands for projects about which nothing else is known."""

    @property
    def start(self) -> str | None: ...


def detect(source: ProjectSource, runtimes: Iterable[RuntimeRules]) -> LaunchPlan:
    """Return the plan of a project without `sandbox.toml`. Raises PlanUndetected. Blocks: call it in a thread."""
    rules = list(runtimes)
    known = {rule.name for rule in rules}
    notes: list[str] = []
    found = _find(source, rules, notes)
    found = {role: candidate for role, candidate in found.items() if candidate.plan.runtime in known}
    if not found:
        looked_at = list(dict.fromkeys(notes))[:_NOTES]
        causes = "".join(f"; {note}" for note in looked_at[:5])
        raise PlanUndetected(f"no app was recognised in the project. Searched for {SEARCHED_FILES}{causes}", looked_at)
    return LaunchPlan(roles={role: found[role].plan for role in sorted(found)})


def detect_role(source: ProjectSource, root: str, role: str, runtimes: Iterable[RuntimeRules]) -> RolePlan | None:
    """Return the plan of one folder of a project, or None. If it contains two apps, prefer the one with this role."""
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
    if front and back and front.plan.framework == STATIC:
        front = None if _serves(back, front) else beside(front, back.plan.port)
    return {role: candidate for role, candidate in ((FRONTEND, front), (BACKEND, back)) if candidate}


def _in_folder(folder: Folder, rules: list[RuntimeRules]) -> dict[str, Candidate]:
    """Return the apps of one folder, by role."""
    python = detect_python(folder)
    node = detect_node(folder)
    found = {candidate.role: candidate for candidate in python}
    # Next to a Python app, a package.json counts only if it is a user interface. Otherwise it usually only lists tools.
    if node is not None and (not found or (node.role == FRONTEND and FRONTEND not in found)):
        found[node.role] = node
    if not found:
        other = (
            detect_procfile(folder)
            or detect_dockerfile(folder)
            or detect_project_script(folder)
            or detect_static(folder)
            or _by_rules(folder, rules)
            or detect_readme(folder)
            or detect_notebooks(folder)
        )
        if other is not None:
            found[other.role] = other
    return found


def _by_rules(folder: Folder, rules: list[RuntimeRules]) -> Candidate | None:
    """Apply the rules in the manifests of the runtimes for which there is no detector here."""
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
    """Return the app in the first folder with one of these names."""
    top_is_installed = not top.names.isdisjoint(PYTHON_MANIFESTS)
    for parent in _PARENT_FOLDERS:
        for name in names:
            folder = top.inner(f"{parent}{name}")
            if not folder.files:
                continue
            found = _in_folder(folder, rules)
            candidate = found.get(role) or next(iter(found.values()), None)
            if candidate is None:
                continue
            if candidate.plan.runtime == NODE_RUNTIME and not folder.has("package.json") and top.has("package.json"):
                return of_project(top, candidate)
            # Python code without a manifest, below a folder that has one, is part of the app in that folder.
            is_part = candidate.plan.runtime.startswith("python") and candidate.plan.framework != STATIC
            if (
                is_part
                and folder.names.isdisjoint(_MANIFESTS)
                and (top_is_installed or _is_app(top, f"{parent}{name}"))
            ):
                continue
            return candidate
    return None


def _is_app(top: Folder, excluded: str) -> bool:
    """Return whether the folder is a Python app without the excluded subfolder."""
    rest = Folder(top.source, top.path, frozenset({excluded}))
    return any(candidate.role == BACKEND for candidate in detect_python(rest))


def _with_top(
    top: Folder, front: Candidate | None, back: Candidate | None, rules: list[RuntimeRules]
) -> tuple[Candidate | None, Candidate | None]:
    """Fill the missing roles from the top folder, excluding the folders of the roles that were found."""
    used = frozenset(candidate.plan.root for candidate in (front, back) if candidate)
    found = _in_folder(Folder(top.source, top.path, used, top.notes), rules)
    return front or found.get(FRONTEND), back or found.get(BACKEND)


def _serves(back: Candidate, front: Candidate) -> bool:
    """Return whether the backend serves the pages itself, that is, whether it mentions their folder in a string."""
    name = front.plan.root.rpartition("/")[2]
    return any(text in back.entry_text for text in (f"{name}'", f'{name}"', f"{name}/"))


def _anywhere(top: Folder, rules: list[RuntimeRules]) -> dict[str, Candidate]:
    """Return the only app, or the only app of each role, in any folder at most two levels deep."""
    folders = sorted(
        {path.rpartition("/")[0] for path in top.files if _may_be_app(path)}, key=lambda path: (path.count("/"), path)
    )
    apps: dict[str, list[Candidate]] = {}
    app_folders: list[str] = []
    for path in folders:
        if path.startswith(tuple(f"{other}/" for other in app_folders)):
            continue
        found = _in_folder(top.inner(path), rules)
        if found:
            app_folders.append(path)
        for role, candidate in found.items():
            apps.setdefault(role, []).append(candidate)
    several = [candidate.plan.root for candidates in apps.values() if len(candidates) > 1 for candidate in candidates]
    if several:
        raise PlanUndetected(
            f"there are several apps, and it is unclear which one is meant: {', '.join(several[:8])}",
            [f"{root}: an app" for root in several[:_NOTES]],
        )
    return {role: candidates[0] for role, candidates in apps.items()}


def _may_be_app(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return bool(folder) and folder.count("/") <= 1 and name in (*_MANIFESTS, "index.html", "main.py", "app.py")
