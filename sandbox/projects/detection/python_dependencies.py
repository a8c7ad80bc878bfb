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
#: Makes the virtualenv into which dependencies are installed.
VENV = f"uv venv --allow-existing {_PYTHON}"
_EXPORTED = ".venv/requirements.txt"

#: Files any one of which shows that the folder is installed on its own.
MANIFESTS = (
    "uv.lock", "poetry.lock", "pdm.lock", "pylock.toml", "requirements.txt", "pyproject.toml", "Pipfile", "setup.py",
    "setup.cfg",
)  # fmt: skip
_REQUIREMENTS = (
    "requirements.txt",
    "requirements/base.txt",
    "requirements/prod.txt",
    "requirements/production.txt",
    "requirements/dev.txt",
    "requirements/requirements.txt",
    "requirements.in",
    "requirements-prod.txt",
)

#: Larger lock files are not read.
_MAX_LOCK_BYTES = 8 << 20

_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?")

#: Import name -> package, for projects that declare no dependency. Contains only unambiguous names.
_KNOWN_IMPORTS = {
    **{
        name: name
        for name in (
            "aiofiles", "aiohttp", "aiosqlite", "altair", "anthropic", "apiflask", "asyncpg", "bcrypt", "blacksheep",
            "bleach", "bokeh", "boto3", "bottle", "celery", "chainlit", "cherrypy", "click", "connexion",
            "cryptography",
            "dash", "diskcache", "django", "duckdb", "faker", "falcon", "fastapi", "fastmcp", "feedparser", "flask",
            "flet", "folium", "geopandas", "geopy", "gradio", "granian", "gunicorn", "httpx", "humanize", "hypercorn",
            "jinja2", "joblib", "langchain", "langgraph", "litestar", "loguru", "marimo", "markdown", "markdown2",
            "matplotlib", "mesop", "microdot", "mistune", "mongoengine", "networkx", "nicegui", "nltk", "numpy",
            "openai", "openpyxl", "orjson", "pandas", "panel", "passlib", "peewee", "plotly", "polars", "psutil",
            "psycopg2", "pyarrow", "pydantic", "pymongo", "pymysql", "pypdf", "pyramid", "pytz", "pywebio", "qrcode",
            "quart", "redis", "reportlab", "requests", "rich", "robyn", "sanic", "scipy", "seaborn", "shiny", "solara",
            "sqlalchemy", "sqlmodel", "starlette", "statsmodels", "streamlit", "structlog", "sympy", "tabulate",
            "taipy", "tiktoken", "tornado", "tqdm", "twilio", "typer", "uvicorn", "waitress", "websockets",
            "whitenoise", "wordcloud", "wtforms", "xgboost", "xlsxwriter", "yfinance",
        )
    },
    "Crypto": "pycryptodome",
    "PIL": "pillow",
    "allauth": "django-allauth",
    "bs4": "beautifulsoup4",
    "corsheaders": "django-cors-headers",
    "crispy_forms": "django-crispy-forms",
    "cv2": "opencv-python-headless",
    "dash_bootstrap_components": "dash-bootstrap-components",
    "dateutil": "python-dateutil",
    "decouple": "python-decouple",
    "django_filters": "django-filter",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "environ": "django-environ",
    "fasthtml": "python-fasthtml",
    "fitz": "pymupdf",
    "flask_bcrypt": "flask-bcrypt",
    "flask_caching": "flask-caching",
    "flask_cors": "flask-cors",
    "flask_jwt_extended": "flask-jwt-extended",
    "flask_limiter": "flask-limiter",
    "flask_login": "flask-login",
    "flask_mail": "flask-mail",
    "flask_migrate": "flask-migrate",
    "flask_restful": "flask-restful",
    "flask_socketio": "flask-socketio",
    "flask_sqlalchemy": "flask-sqlalchemy",
    "flask_wtf": "flask-wtf",
    "jose": "python-jose",
    "jwt": "pyjwt",
    "langchain_community": "langchain-community",
    "langchain_core": "langchain-core",
    "langchain_openai": "langchain-openai",
    "mcp": "mcp",
    "multipart": "python-multipart",
    "ninja": "django-ninja",
    "pptx": "python-pptx",
    "psycopg": "psycopg[binary]",
    "pydantic_settings": "pydantic-settings",
    "rest_framework": "djangorestframework",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slowapi": "slowapi",
    "slugify": "python-slugify",
    "socketio": "python-socketio",
    "sse_starlette": "sse-starlette",
    "yaml": "pyyaml",
}  # fmt: skip


def package_of(module: str) -> str:
    """The package of a module as an argument of a shell: that of the same name if no other is known."""
    if module == "pkg_resources":  # setuptools contained it until version 81
        return "'setuptools<81'"
    return shlex.quote(_KNOWN_IMPORTS.get(module, module))


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
            "uv.lock": is_project and (has("uv.lock") or self._is_member),
            "poetry.lock": has("poetry.lock") and bool(self.pyproject),
            "pdm.lock": has("pdm.lock") and is_project,
            "pylock.toml": has("pylock.toml"),
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
            return f"{VENV} && uv pip install {_quoted(sorted((known | needs).values()))}"
        lacking = {name: required for name, required in needs.items() if not self._satisfies(required, name)}
        extras, groups = self._optional(set(lacking))
        optional = set().union(*extras.values(), *groups.values())
        missing = _quoted(required for name, required in lacking.items() if name not in optional)
        of_groups = [f"--group {shlex.quote(name)}" for name in groups]
        of_extras = [f"--extra {shlex.quote(name)}" for name in extras]
        if self.method == "uv.lock":
            # The environment is that of this role, not that of a workspace above.
            place = "UV_PROJECT_ENVIRONMENT=$PWD/.venv " if self._is_member else ""
            unlocked = self._unlocked()
            said = f"echo 'uv.lock lacks {' '.join(unlocked)}: it is brought up to date' && " if unlocked else ""
            frozen = "" if unlocked else "--frozen "
            sync = " ".join((f"{said}{place}uv sync {frozen}{_PYTHON}", *of_extras, *of_groups))
            return f"{sync} && uv pip install {missing}" if missing else sync
        source = self._source()
        if source == "-e ." and extras:
            source, of_extras = "-e " + shlex.quote(f".[{','.join(extras)}]"), []
        words = (f"{VENV} && {self._export_command()}uv pip install", source, *of_extras, *of_groups, missing)
        return " ".join(filter(None, words))

    def install_project(self) -> str:
        """Return the command that installs the project itself, with its programs, and its dependencies."""
        if self.method == "uv.lock":
            return self.install({}, ())
        return f"{VENV} && uv pip install -e ."

    @property
    def _is_member(self) -> bool:
        """Whether the folder is a part of a workspace of uv above it."""
        return self._workspace() is not None

    def _workspace(self) -> Folder | None:
        """The workspace of uv of which the folder is a part."""
        parts = self._folder.path.split("/") if self._folder.path != "." else []
        above = ["/".join(parts[:depth]) or "." for depth in range(len(parts))]
        folders = (Folder(self._folder.source, path) for path in above)
        return next(
            (
                folder
                for folder in folders
                if folder.has("uv.lock") and "workspace" in _table(_toml(folder, "pyproject.toml"), "tool", "uv")
            ),
            None,
        )

    def _unlocked(self) -> list[str]:
        """The declared dependencies that the lock file does not list for this project. Nothing is missing from a lock
        file that cannot be read: uv itself finds what is wrong with it."""
        project = _table(self.pyproject, "project")
        name = re.sub(r"[-_.]+", "-", str(project.get("name"))).lower()
        lock = (self._workspace() or self._folder).read("uv.lock", _MAX_LOCK_BYTES) or ""
        entries = lock.split("\n[[package]]\n")
        own = next((entry for entry in entries if entry.startswith(f'name = "{name}"\n')), None)
        if own is None:
            return []
        listed = own.partition("\ndependencies = [")[2].partition("\n]")[0]
        return sorted(_names(_strings(project.get("dependencies"))) - set(re.findall(r'name = "([^"]+)"', listed)))

    def _optional(self, lacking: set[str]) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
        """Return the extras and the dependency groups of the project that contain packages which the app lacks, each
        with all of its packages."""
        if self.method not in ("uv.lock", "pyproject"):
            return {}, {}
        extras = _table(self.pyproject, "project", "optional-dependencies")
        groups = _table(self.pyproject, "dependency-groups")
        found = [{name: _names(_strings(listed)) for name, listed in table.items()} for table in (extras, groups)]
        chosen = [{name: packages for name, packages in table.items() if packages & lacking} for table in found]
        return chosen[0], chosen[1]

    def _source(self) -> str:
        """Return the arguments of `uv pip install` that name the list of dependencies."""
        if self.method == "requirements":
            return f"-r {self.requirements}"
        if self.method in ("poetry.lock", "pdm.lock", "pipfile"):
            return f"-r {_EXPORTED}"
        if self.method == "pylock.toml":
            return "-r pylock.toml"
        # Without a build system, pyproject.toml only lists dependencies. A project of Poetry may have no package,
        # either.
        if self.method == "setup":
            # Spelled out: unlike for `-e .`, there is no list of dependencies for a second attempt.
            return "--editable ."
        return "-e ." if "build-system" in self.pyproject and self.method != "poetry" else "-r pyproject.toml"

    def _export_command(self) -> str:
        """Return the commands that convert another tool's lock file into a requirements file for `uv`."""
        if self.method == "poetry.lock":
            return f"uvx --with poetry-plugin-export poetry export -o {_EXPORTED} && "
        if self.method == "pdm.lock":
            return f"uvx pdm export --without-hashes -o {_EXPORTED} && "
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


def _names(requirements: Iterable[str]) -> set[str]:
    """Return the normalised names of the packages in a list of requirements."""
    matches = (_REQUIREMENT.match(requirement) for requirement in requirements)
    return {re.sub(r"[-_.]+", "-", match[1]).lower() for match in matches if match}


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
