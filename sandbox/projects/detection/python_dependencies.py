"""The install command of a Python project, from its lock file or manifest, or else from what it imports."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Any

from sandbox.projects.source import Folder
from sandbox.projects.toml import TomlInvalid, load_toml

#: The container has only this version, so `uv` must use it even if `.python-version` names another one.
_PYTHON = "--python 3.12"
_VENV = f"uv venv --allow-existing {_PYTHON}"
_EXPORTED = ".venv/requirements.txt"

#: Files any one of which shows that the folder is installed on its own.
MANIFESTS = ("uv.lock", "poetry.lock", "requirements.txt", "pyproject.toml", "Pipfile", "setup.py", "setup.cfg")
_REQUIREMENTS = (
    "requirements.txt",
    "requirements/base.txt",
    "requirements/prod.txt",
    "requirements/production.txt",
    "requirements/dev.txt",
)

_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?")

#: Import name -> package, for projects that declare no dependency. Contains only unambiguous names.
_KNOWN_IMPORTS = {
    **{
        name: name
        for name in (
            "aiofiles", "aiohttp", "aiosqlite", "altair", "anthropic", "bokeh", "boto3", "bottle", "cherrypy", "dash",
            "django", "fastapi", "flask", "folium", "gradio", "gunicorn", "httpx", "jinja2", "litestar", "markdown",
            "matplotlib", "networkx", "nicegui", "nltk", "numpy", "openai", "openpyxl", "pandas", "passlib", "peewee",
            "plotly", "polars", "psutil", "psycopg2", "pydantic", "pymongo", "pytz", "qrcode", "quart", "redis",
            "requests", "rich", "sanic", "scipy", "seaborn", "sqlalchemy", "sqlmodel", "starlette", "streamlit",
            "sympy", "tabulate", "tornado", "tqdm", "typer", "uvicorn", "waitress", "websockets", "yfinance",
        )
    },
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "corsheaders": "django-cors-headers",
    "cv2": "opencv-python-headless",
    "dash_bootstrap_components": "dash-bootstrap-components",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "flask_cors": "flask-cors",
    "flask_login": "flask-login",
    "flask_migrate": "flask-migrate",
    "flask_restful": "flask-restful",
    "flask_socketio": "flask-socketio",
    "flask_sqlalchemy": "flask-sqlalchemy",
    "flask_wtf": "flask-wtf",
    "jose": "python-jose",
    "jwt": "pyjwt",
    "multipart": "python-multipart",
    "pydantic_settings": "pydantic-settings",
    "rest_framework": "djangorestframework",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "sse_starlette": "sse-starlette",
    "yaml": "pyyaml",
}  # fmt: skip


class Dependencies:
    """The dependencies that a folder's manifests declare: package names with their extras."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.extras: dict[str, set[str]] = {}
        self.pyproject = _toml(folder, "pyproject.toml")
        self.requirements = next((path for path in _REQUIREMENTS if folder.has(path)), None)
        self._read()

    @property
    def declared(self) -> bool:
        """Whether the folder has a manifest."""
        return self.method is not None

    @property
    def method(self) -> str | None:
        """Which lock file or manifest is used, or None. Lock files take precedence."""
        has = self._folder.has
        is_project = isinstance(self.pyproject.get("project"), dict)
        methods = {
            "uv.lock": has("uv.lock") and is_project,
            "poetry.lock": has("poetry.lock") and bool(self.pyproject),
            "requirements": self.requirements is not None,
            "pipfile": has("Pipfile"),
            "pyproject": is_project,
            "poetry": "poetry" in _table(self.pyproject, "tool"),
            "setup": has("setup.py") or has("setup.cfg"),
        }
        return next((method for method, applies in methods.items() if applies), None)

    def install(self, needs: dict[str, str], imports: Iterable[str]) -> str:
        """Return the command that creates `.venv` and installs the dependencies into it.

        Args:
            needs: Packages that the app or its start command requires, with the requirement to install
                (`{"uvicorn": "uvicorn[standard]"}`). Those that are not declared are added.
            imports: Names of the imported modules. They are used only if nothing is declared.
        """
        if not self.declared:
            known = {_KNOWN_IMPORTS[name]: _KNOWN_IMPORTS[name] for name in imports if name in _KNOWN_IMPORTS}
            return f"{_VENV} && uv pip install {_quoted(sorted((known | needs).values()))}"
        missing = _quoted(required for name, required in needs.items() if not self._satisfies(required, name))
        if self.method == "uv.lock":
            sync = f"uv sync --frozen {_PYTHON}"
            return f"{sync} && uv pip install {missing}" if missing else sync
        return f"{_VENV} && {self._export_command()}uv pip install {self._source()} {missing}".rstrip()

    def _source(self) -> str:
        """Return the arguments of `uv pip install` that name the list of dependencies."""
        if self.method == "requirements":
            return f"-r {self.requirements}"
        if self.method in ("poetry.lock", "pipfile"):
            return f"-r {_EXPORTED}"
        # Without a build system, pyproject.toml only lists dependencies. A project of Poetry may have no package,
        # either.
        is_package = "build-system" in self.pyproject or self.method == "setup"
        return "-e ." if is_package and self.method != "poetry" else "-r pyproject.toml"

    def _export_command(self) -> str:
        """Return the commands that convert another tool's lock file into a requirements file for `uv`."""
        if self.method == "poetry.lock":
            return f"uvx --with poetry-plugin-export poetry export -o {_EXPORTED} && "
        if self.method == "pipfile":
            lock = "" if self._folder.has("Pipfile.lock") else "uvx pipenv lock && "
            return f"{lock}uvx pipenv requirements > {_EXPORTED} && "
        return ""

    def _satisfies(self, required: str, name: str) -> bool:
        """Return whether the declared dependencies include the package with the required extras."""
        if name == "uvicorn" and self.extras.get("fastapi", set()) & {"standard", "all"}:
            return True
        extras = set(re.findall(r"\[(.*)\]", required))
        return name in self.extras and extras <= self.extras[name]

    def _read(self) -> None:
        if self.requirements:
            self._read_requirements(self.requirements)
        project = _table(self.pyproject, "project")
        for requirement in _strings(project.get("dependencies")):
            self._add(requirement)
        for name in _table(self.pyproject, "tool", "poetry", "dependencies"):
            value = _table(self.pyproject, "tool", "poetry", "dependencies")[name]
            self._add(name, _strings(value.get("extras")) if isinstance(value, dict) else ())
        for name, value in _table(_toml(self._folder, "Pipfile"), "packages").items():
            self._add(name, _strings(value.get("extras")) if isinstance(value, dict) else ())

    def _read_requirements(self, first: str) -> None:
        """Read the file and those that it includes, each once."""
        waiting, seen = [first], {first}
        while waiting:
            path = waiting.pop()
            for raw in (self._folder.read(path) or "").splitlines():
                line = raw.strip()
                included = re.match(r"^(?:-r|--requirement)[\s=]+(\S+)", line)
                if not included:
                    self._add(line)
                    continue
                other = f"{path.rpartition('/')[0]}/{included[1]}".lstrip("/").replace("/./", "/")
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)

    def _add(self, requirement: str, extras: Iterable[str] = ()) -> None:
        match = _REQUIREMENT.match(requirement)
        if match:
            name = re.sub(r"[-_.]+", "-", match[1]).lower()
            named = {extra.strip().lower() for extra in (match[2] or "").split(",") if extra.strip()}
            self.extras.setdefault(name, set()).update(named, extras)


def _quoted(requirements: Iterable[str]) -> str:
    return " ".join(shlex.quote(requirement) for requirement in requirements)


def _toml(folder: Folder, path: str) -> dict[str, Any]:
    text = folder.read(path)
    if text is None:
        return {}
    try:
        return load_toml(text)
    except TomlInvalid as error:
        folder.notes.append(f"{folder.full_path(path)} is not valid TOML: {error}")
        return {}


def _table(content: dict[str, Any], *path: str) -> dict[str, Any]:
    for key in path:
        value = content.get(key)
        if not isinstance(value, dict):
            return {}
        content = value
    return content


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
