"""Remedies: changes of a role's plan that a launch makes by itself after a failure that it knows.

A remedy never changes what the project states: a start command, a port or a variable of `sandbox.toml`, or a variable
that the caller set. Detected plans name a framework and stated ones do not, which tells them apart.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pydantic import ValidationError

from sandbox.domain.plan import RolePlan

#: The deadline that a slow command or app gets: this many times the service's, at most an hour.
_LONGEST_SECONDS = 3600
#: In a container, whose network only the service and the session's other containers reach.
_ALL_ADDRESSES = "0.0.0.0"  # noqa: S104
#: Makes the virtualenv that is there already if the project's own command made one.
_VENV = "uv venv -q --allow-existing --python 3.12"
#: Import name -> package, where they differ.
_PYTHON_PACKAGES = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "corsheaders": "django-cors-headers",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "decouple": "python-decouple",
    "dotenv": "python-dotenv",
    "environ": "django-environ",
    "jose": "python-jose",
    "jwt": "pyjwt",
    "multipart": "python-multipart",
    "rest_framework": "djangorestframework",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "yaml": "pyyaml",
}
#: Program -> the package that brings it, by language.
_PYTHON_PROGRAMS = {
    **{name: name for name in ("uvicorn", "gunicorn", "hypercorn", "flask", "streamlit", "waitress", "daphne")},
    "fastapi": "fastapi[standard]",
    "django-admin": "django",
    "waitress-serve": "waitress",
}
_NODE_PROGRAMS = {
    **{
        name: name
        for name in ("vite", "next", "nodemon", "tsx", "ts-node", "serve", "http-server", "react-scripts", "nuxt")
    },
    "tsc": "typescript",
    "concurrently": "concurrently",
    "webpack": "webpack-cli",
    "json-server": "json-server",
}


@dataclass(frozen=True, slots=True)
class Change:
    """A role's plan after a remedy, and what was changed, as the end of a sentence."""

    plan: RolePlan
    text: str


@dataclass(frozen=True, slots=True)
class Deadlines:
    """The service's time limits, in seconds."""

    install_seconds: int
    health_seconds: int


@dataclass(frozen=True, slots=True)
class Case:
    """What a remedy is made from."""

    plan: RolePlan
    particulars: Mapping[str, str]
    #: Names of the variables that the caller set for the session.
    given: frozenset[str]
    deadlines: Deadlines

    @property
    def start_is_stated(self) -> bool:
        return self.plan.framework is None


def remedy_for(family: str) -> str | None:
    """The name of the remedy for failures of this family, or None."""
    return _REMEDIES[family].__name__.removeprefix("_") if family in _REMEDIES else None


def apply(family: str, case: Case) -> Change | None:
    """The plan with the remedy for this family; None if there is none, it changes nothing, or the project says
    otherwise."""
    change = _REMEDIES[family](case) if family in _REMEDIES else None
    return change if change is not None and change.plan != case.plan else None


def _install_package(case: Case) -> Change | None:
    """Install one more package after the others."""
    node = case.plan.runtime.startswith("node")
    particulars = case.particulars
    if "module" in particulars:
        package: str | None = _PYTHON_PACKAGES.get(particulars["module"], particulars["module"].replace("_", "-"))
    elif "program" in particulars:
        package = (_NODE_PROGRAMS if node else _PYTHON_PROGRAMS).get(particulars["program"])
    else:
        package = _package_name(particulars["package"])
    if package is None:
        return None
    command = _node_add(case.plan.install or "") if node else f"{_VENV} && uv pip install"
    added = f"{command} {shlex.quote(package)}"
    install = f"{case.plan.install} && {added}" if case.plan.install else added
    if case.plan.install and added in case.plan.install:
        return None
    return _changed(case, {"install": install}, f"installs {package} too")


def _package_name(imported: str) -> str:
    """The package of an import such as `lodash/fp` or `@scope/name/part`."""
    return "/".join(imported.split("/")[: 2 if imported.startswith("@") else 1])


def _node_add(install: str) -> str:
    if re.search(r"\bpnpm\b", install):
        return "pnpm add"
    if re.search(r"\byarn\b", install):
        return "yarn add"
    return "npm install --no-save --no-audit --no-fund"


def _loosen_lock(case: Case) -> Change | None:
    """Install by the manifest instead of a lock file that does not match it."""
    install = case.plan.install or ""
    loose = re.sub(r"\bnpm ci\b", "npm install", install)
    loose = re.sub(r"(\bpnpm install) --frozen-lockfile\b", r"\1 --no-frozen-lockfile", loose)
    loose = re.sub(r"(\byarn install) --(?:frozen-lockfile|immutable)\b", r"\1", loose)
    loose = re.sub(r"(\buv sync) --(?:frozen|locked)\b", r"\1", loose)
    return _changed(case, {"install": loose}, f"installs by the manifest: `{loose}`")


def _ignore_peers(case: Case) -> Change | None:
    """Install although peer dependencies conflict."""
    loose = re.sub(
        r"\bnpm (ci|install)\b(?! --legacy-peer-deps)", r"npm \1 --legacy-peer-deps", case.plan.install or ""
    )
    return _changed(case, {"install": loose}, "ignores conflicts of peer dependencies")


def _ignore_engines(case: Case) -> Change | None:
    """Install with the engine that is there."""
    if re.search(r"\byarn\b", case.plan.install or ""):
        loose = re.sub(
            r"\byarn install\b(?! --ignore-engines)", "yarn install --ignore-engines", case.plan.install or ""
        )
        return _changed(case, {"install": loose}, "uses the engine version that is installed")
    change = _with_env(case, {"npm_config_engine_strict": "false"}, "uses the engine version that is installed")
    install, edit = case.plan.install or "", "npm pkg delete engines.pnpm"
    if re.search(r"\bpnpm\b", install) and edit not in install:
        # pnpm checks its own version even if engine checks are turned off by the variable.
        plan = change.plan if change else case.plan
        return _changed(
            replace(case, plan=plan), {"install": f"{edit} && {install}"}, "uses the versions that are installed"
        )
    return change


def _installed_package_manager(case: Case) -> Change | None:
    """Use the version of the package manager that is there instead of the one that package.json names."""
    names = ("npm_config_manage_package_manager_versions", "npm_config_package_manager_strict")
    env = {"COREPACK_ENABLE_PROJECT_SPEC": "0", **dict.fromkeys(names, "false")}
    return _with_env(case, env, "uses the version of the package manager that is installed")


def _ignore_python(case: Case) -> Change | None:
    """Install the dependencies of a project that requires another version of Python, for the one that is there."""
    install = case.plan.install or ""
    sync = f"{_VENV} && uv pip install -r pyproject.toml"
    loose = re.sub(r"\buv sync --python 3\.12\b", sync, install)
    pip = "pip --python .venv install --ignore-requires-python --editable ."
    loose = loose.replace("uv pip install --editable .", pip)
    export = r"(?:uvx [^&]*\bpoetry (?:lock|export)\b[^&]*&& )+uv pip install -r \.venv/requirements\.txt"
    loose = re.sub(export, "uv pip install -r pyproject.toml", loose)
    return _changed(case, {"install": loose}, "uses the version of Python that is installed")


def _old_openssl(case: Case) -> Change | None:
    """Let webpack 4 use the algorithms of old OpenSSL."""
    return _with_env(case, {"NODE_OPTIONS": "--openssl-legacy-provider"}, "sets NODE_OPTIONS=--openssl-legacy-provider")


def _another_version(case: Case) -> Change | None:
    """Install a version that is published instead of the one that is required."""
    package, install = case.particulars["package"], case.plan.install or ""
    if case.plan.runtime.startswith("node"):
        if not re.search(r"\bnpm (?:ci|install)\b", install):
            return None
        name = shlex.quote(f"dependencies.{package}")
        loose = re.sub(r"\bnpm ci\b", "npm install", install)
        edit = f"npm pkg delete {shlex.quote(f'devDependencies.{package}')} && npm pkg set {name}=latest"
        return _changed(case, {"install": f"{edit} && {loose}"}, f"installs the latest version of {package}")
    file = f".sandbox-override-{re.sub(r'[^A-Za-z0-9]+', '-', package)}.txt"
    loose = re.sub(r"\buv pip install (?=-r |-e )", f"uv pip install --override {file} ", install, count=1)
    if loose == install:
        return None
    return _changed(
        case,
        {"install": f"echo {shlex.quote(package)} > {file} && {loose}"},
        f"lets the installer choose the version of {package}",
    )


def _headless_opencv(case: Case) -> Change | None:
    """Use the variant of OpenCV that needs no display. The one with the contributed modules replaces any other."""
    install = case.plan.install or ""
    replace = "uv pip uninstall -q opencv-python opencv-contrib-python && uv pip install opencv-contrib-python-headless"
    if "uv " not in install or replace in install:
        return None
    return _changed(case, {"install": f"{install} && {replace}"}, "installs the variant of OpenCV for servers")


def _decode_requirements(case: Case) -> Change | None:
    """Rewrite a file of requirements that is not UTF-8."""
    file, install = case.particulars["file"], case.plan.install or ""
    if file.startswith("/") or ".." in file.split("/") or not install:
        return None
    code = f"from pathlib import Path as P; p = P({file!r}); p.write_text(p.read_bytes().decode('latin-1'), 'utf-8')"
    edit = f"python -c {shlex.quote(code)}"
    return None if edit in install else _changed(case, {"install": f"{edit} && {install}"}, f"reads {file} as Latin-1")


def _default_variable(case: Case) -> Change | None:
    """Give a variable a value that stands for a real one."""
    name = case.particulars["variable"]
    return _with_env(case, {name: _default_of(name)}, f"sets {name}={_default_of(name)}, a stand-in")


def _default_of(name: str) -> str:
    if name == "DATABASE_URL" or name.endswith(("_DATABASE_URL", "_DB_URL")):
        return "sqlite:///./sandbox.db"
    if name.endswith(("_URL", "_URI", "_ENDPOINT", "_ORIGIN")):
        return "http://localhost"
    if name.endswith(("_HOST", "_DOMAIN")):
        return "localhost"
    if name.endswith(("PORT", "_TIMEOUT", "_SIZE", "_LIMIT", "_COUNT", "_SECONDS", "_WORKERS", "_TTL")):
        return "1"
    if name.startswith(("ENABLE_", "USE_", "IS_")) or name.endswith(("DEBUG", "_ENABLED")):
        return "0"
    return "sandbox-stand-in-value"


def _bind_everywhere(case: Case) -> Change | None:
    """Have the app listen on all of the container's addresses."""
    change = _with_env(case, dict.fromkeys(("HOST", "HOSTNAME"), _ALL_ADDRESSES), "has the app listen on 0.0.0.0")
    plan = change.plan if change else case.plan
    if plan.start and not case.start_is_stated:
        start = re.sub(r"(--host(?:name)?[ =]|--bind[ =])[\w.-]+", r"\g<1>0.0.0.0", plan.start)
        plan = plan.model_copy(update={"start": start})
    return Change(plan, "has the app listen on 0.0.0.0")


def _other_port(case: Case) -> Change | None:
    """Expect the app at the port that it opened."""
    port = int(case.particulars["opened"])
    if case.start_is_stated or not 0 < port < 65536:
        return None
    return _changed(case, {"port": port}, f"expects the app on port {port}")


def _longer_start(case: Case) -> Change | None:
    """Wait longer for the app, unless the project states how long."""
    if case.plan.health_timeout_seconds is not None:
        return None
    seconds = min(_LONGEST_SECONDS, 3 * case.deadlines.health_seconds)
    return _changed(case, {"health_timeout_seconds": seconds}, f"waits up to {seconds} s for the app")


def _longer_install(case: Case) -> Change | None:
    """Give the install command longer, unless the project states how long."""
    if case.plan.install_timeout_seconds is not None:
        return None
    seconds = min(_LONGEST_SECONDS, 3 * case.deadlines.install_seconds)
    return _changed(case, {"install_timeout_seconds": seconds}, f"gives the install command up to {seconds} s")


_REMEDIES: dict[str, Callable[[Case], Change | None]] = {
    "python_module_missing": _install_package,
    "node_module_missing": _install_package,
    "program_missing": _install_package,
    "openssl_of_old_webpack": _old_openssl,
    "engine_mismatch": _ignore_engines,
    "package_manager_too_new": _installed_package_manager,
    "lock_out_of_step": _loosen_lock,
    "peer_conflict": _ignore_peers,
    "node_version_missing": _another_version,
    "python_version_missing": _another_version,
    "python_package_unsupported": _another_version,
    "python_build_failed": _another_version,
    "python_version_mismatch": _ignore_python,
    "python_conflict": _another_version,
    "opencv_with_display": _headless_opencv,
    "requirements_not_utf8": _decode_requirements,
    "variable_missing": _default_variable,
    "address_not_available": _bind_everywhere,
    "other_port": _other_port,
    "slow_start": _longer_start,
    "slow_install": _longer_install,
}


def _changed(case: Case, values: dict[str, object], text: str) -> Change | None:
    """The plan with these values; None if it would not be valid, for example because a command gets too long."""
    try:
        return Change(RolePlan.model_validate(case.plan.model_dump() | values), text)
    except ValidationError:
        return None


def _with_env(case: Case, env: dict[str, str], text: str) -> Change | None:
    """The plan with those of these variables that neither the project nor the caller sets; None if there are none."""
    missing = {name: value for name, value in env.items() if name not in case.plan.env and name not in case.given}
    return _changed(case, {"env": case.plan.env | missing}, text) if missing else None
