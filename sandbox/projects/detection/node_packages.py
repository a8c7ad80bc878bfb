"""The install command of a Node.js project, from its package manager and lock file or those of its workspace."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from sandbox.projects.source import Folder

#: Larger lock files are not read: the package manager itself finds what is wrong with them.
MAX_LOCK_BYTES = 8 << 20

_LOCKS = {
    "pnpm-lock.yaml": "pnpm",
    "yarn.lock": "yarn",
    "package-lock.json": "npm",
    "npm-shrinkwrap.json": "npm",
    "bun.lock": "bun",
    "bun.lockb": "bun",
}
_BERRY = "YARN_NODE_LINKER=node-modules"
_NATIVE = re.compile(r"[-/]linux-(?:x64|64|arm64)(?:-gnu|-glibc)?$")


@dataclass(frozen=True, slots=True)
class PackageManager:
    """The package manager of an app."""

    name: str
    #: Version that `packageManager` names; "" if it names none.
    version: str
    #: Whether a lock file applies to the app: in its own folder, or at the top of a workspace.
    locked: bool
    #: Whether the project has settings of Yarn 2 or newer.
    berry: bool
    #: Folder of the lock file, or of what else decided.
    folder: Folder


def read_package(folder: Folder) -> dict[str, Any] | None:
    """Return the content of `package.json`, or None with a note if there is no valid one."""
    text = folder.read("package.json")
    if text is None:
        return None
    try:
        package = json.loads(text)
    except (ValueError, RecursionError) as error:
        folder.notes.append(f"{folder.full_path('package.json')} is not valid JSON: {error}")
        return None
    if not isinstance(package, dict):
        folder.notes.append(f"{folder.full_path('package.json')} is not an object")
        return None
    return package


def strings(value: object) -> dict[str, str]:
    """Return the string values of an object; an empty dict for anything else."""
    if not isinstance(value, dict):
        return {}
    return {name: text for name, text in value.items() if isinstance(text, str)}


def package_manager(folder: Folder, package: dict[str, Any]) -> PackageManager:
    """Return the package manager of an app: as its own folder names it, else the nearest folder above that does."""
    own = _manager_in(folder, package, own=True)
    if own is not None and (own.name != "npm" or own.locked):
        return own
    for parent in _folders_above(folder):
        above = _manager_in(parent, read_package(parent) or {}, own=False)
        if above is not None and not (own is not None and above.name == "npm" and not above.locked):
            return above
    return own or PackageManager("npm", "", locked=False, berry=False, folder=folder)


def install_command(folder: Folder, package: dict[str, Any]) -> str:
    """Return the install command. If there is a lock file, it is followed exactly."""
    manager = package_manager(folder, package)
    uses_workspace = any(
        spec.startswith("workspace:")
        for table in ("dependencies", "devDependencies")
        for spec in strings(package.get(table)).values()
    )
    if manager.name == "pnpm":
        return "pnpm install --frozen-lockfile" if manager.locked else "pnpm install"
    if manager.name == "yarn":
        return _yarn_command(manager)
    if uses_workspace:
        # npm does not know the protocol `workspace:`. Yarn reads the same list of workspaces.
        return f"{_BERRY} corepack yarn@4 install"
    if manager.name != "npm" or not manager.locked:
        return "npm install"
    missing = _missing_native(manager.folder)
    if missing:
        # npm leaves out the native packages of other systems if node_modules existed when the lock file was made.
        return f"echo 'The lock file lacks {missing}: installing without it' && npm install --no-package-lock"
    return "npm ci"


def _yarn_command(manager: PackageManager) -> str:
    if manager.version and not manager.version.startswith(("0", "1.")) and manager.version != "1":
        return f"{_BERRY} yarn install"
    if not manager.version and manager.berry:
        return f"{_BERRY} corepack yarn@4 install"
    return "yarn install --frozen-lockfile" if manager.locked else "yarn install"


def _manager_in(folder: Folder, package: dict[str, Any], *, own: bool) -> PackageManager | None:
    """Return the package manager that a folder names, or None.

    A lock file above the app's own folder applies to the app only if that folder is the top of a workspace.
    """
    named, _, version = str(package.get("packageManager") or "").partition("@")
    if not named:
        engines = package.get("devEngines")
        stated = engines.get("packageManager") if isinstance(engines, dict) else None
        named = str(stated.get("name") or "") if isinstance(stated, dict) else ""
    is_workspace = "workspaces" in package or folder.has("pnpm-workspace.yaml")
    locks = [name for name in _LOCKS if folder.has(name)]
    name = named if named in {"npm", "pnpm", "yarn", "bun"} else ""
    if not name and folder.has("pnpm-workspace.yaml"):
        name = "pnpm"
    if not name and locks:
        name = _LOCKS[locks[0]]
    if not name and is_workspace:
        name = "npm"
    if not name:
        return None
    locked = any(_LOCKS[lock] == name for lock in locks) and (own or is_workspace)
    berry = folder.has(".yarnrc.yml") or (name == "yarn" and "__metadata:" in (folder.read("yarn.lock") or "")[:500])
    return PackageManager(name, version.partition("+")[0], locked=locked, berry=berry, folder=folder)


def _folders_above(folder: Folder) -> list[Folder]:
    """Return the folders above, the nearest first, up to the top of the project."""
    if folder.path == ".":
        return []
    parts = folder.path.split("/")
    paths = ["/".join(parts[:depth]) or "." for depth in range(len(parts) - 1, -1, -1)]
    return [Folder(folder.source, path) for path in paths]


def _missing_native(folder: Folder) -> str | None:
    """Return a native package for Linux that the npm lock file refers to and does not contain, or None."""
    name = "package-lock.json" if folder.has("package-lock.json") else "npm-shrinkwrap.json"
    try:
        content = json.loads(folder.read(name, MAX_LOCK_BYTES) or "{}")
    except (ValueError, RecursionError):
        return None
    packages = content.get("packages") if isinstance(content, dict) else None
    if not isinstance(packages, dict):
        return None
    contained = {path.rpartition("node_modules/")[2] for path in packages}
    for entry in packages.values():
        optional = strings(entry.get("optionalDependencies")) if isinstance(entry, dict) else {}
        native = [name for name in optional if _NATIVE.search(name)]
        if native and contained.isdisjoint(native):
            return max(native)
    return None
