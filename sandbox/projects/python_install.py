"""How a Python project's dependencies are installed: by its own lock or manifest, else what it imports."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterable
from typing import Any

from sandbox.projects.source import Folder

#: What `uv` is told to use, whatever `.python-version` says: the only one there is in the container.
_PYTHON = "--python 3.12"
_VENV = f"uv venv --allow-existing {_PYTHON}"
_EXPORTED = ".venv/requirements.txt"

#: Files any of which says that this folder is installed on its own.
MANIFESTS = ("uv.lock", "poetry.lock", "requirements.txt", "pyproject.toml", "Pipfile", "setup.py", "setup.cfg")
_REQUIREMENTS = (
    "requirements.txt",
    "requirements/base.txt",
    "requirements/prod.txt",
    "requirements/production.txt",
    "requirements/dev.txt",
)

_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?")

#: Import name -> package, for projects that name no dependency. Only packages that are meant by nothing else.
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
    """What a folder's manifests declare: package names with their extras."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.extras: dict[str, set[str]] = {}
        self.pyproject = _toml(folder, "pyproject.toml")
        self.requirements = next((path for path in _REQUIREMENTS if folder.has(path)), None)
        self._read()

    @property
    def declared(self) -> bool:
        """Whether there is a manifest at all."""
        return self.method is not None

    @property
    def method(self) -> str | None:
        """Which lock or manifest is followed; locks come first."""
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
        """The command that makes `.venv`. `needs` are packages the start command or the app cannot do without, with
        what to ask for (`{"uvicorn": "uvicorn[standard]"}`); `imports` are looked at where nothing is declared."""
        if not self.declared:
            known = {_KNOWN_IMPORTS[name]: _KNOWN_IMPORTS[name] for name in imports if name in _KNOWN_IMPORTS}
            return f"{_VENV} && uv pip install {_quoted(sorted((known | needs).values()))}"
        missing = _quoted(wanted for name, wanted in needs.items() if not self._satisfies(wanted, name))
        if self.method == "uv.lock":
            synced = f"uv sync --frozen {_PYTHON}"
            return f"{synced} && uv pip install {missing}" if missing else synced
        return f"{_VENV} && {self._exported()}uv pip install {self._listed()} {missing}".rstrip()

    def _listed(self) -> str:
        """What `uv pip install` is to follow."""
        if self.method == "requirements":
            return f"-r {self.requirements}"
        if self.method in ("poetry.lock", "pipfile"):
            return f"-r {_EXPORTED}"
        # Without a build system it is no package, only a list of dependencies; Poetry's may have no package either.
        packaged = "build-system" in self.pyproject or self.method == "setup"
        return "-e ." if packaged and self.method != "poetry" else "-r pyproject.toml"

    def _exported(self) -> str:
        """Commands that turn another tool's lock into a list that `uv` follows, from the index it is told to use."""
        if self.method == "poetry.lock":
            return f"uvx --with poetry-plugin-export poetry export -o {_EXPORTED} && "
        if self.method == "pipfile":
            lock = "" if self._folder.has("Pipfile.lock") else "uvx pipenv lock && "
            return f"{lock}uvx pipenv requirements > {_EXPORTED} && "
        return ""

    def _satisfies(self, wanted: str, name: str) -> bool:
        if name == "uvicorn" and self.extras.get("fastapi", set()) & {"standard", "all"}:
            return True
        extras = set(re.findall(r"\[(.*)\]", wanted))
        return name in self.extras and extras <= self.extras[name]

    def _read(self) -> None:
        if self.requirements:
            self._read_requirements(self.requirements, set())
        project = _table(self.pyproject, "project")
        for requirement in _strings(project.get("dependencies")):
            self._add(requirement)
        for name in _table(self.pyproject, "tool", "poetry", "dependencies"):
            value = _table(self.pyproject, "tool", "poetry", "dependencies")[name]
            self._add(name, _strings(value.get("extras")) if isinstance(value, dict) else ())
        for name, value in _table(_toml(self._folder, "Pipfile"), "packages").items():
            self._add(name, _strings(value.get("extras")) if isinstance(value, dict) else ())

    def _read_requirements(self, path: str, seen: set[str]) -> None:
        if path in seen:
            return
        seen.add(path)
        for raw in (self._folder.read(path) or "").splitlines():
            line = raw.strip()
            included = re.match(r"^(?:-r|--requirement)[\s=]+(\S+)", line)
            if included:
                parent = path.rpartition("/")[0]
                self._read_requirements(f"{parent}/{included[1]}".lstrip("/").replace("/./", "/"), seen)
            else:
                self._add(line)

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
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        folder.notes.append(f"{folder.place(path)} is not valid TOML: {error}")
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
