"""Recognises Python apps: Django, ASGI frameworks such as FastAPI, Flask, apps that a program serves such as Streamlit,
site generators, and scripts that start a server."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

from sandbox.domain.plan import RolePlan
from sandbox.projects.detection.candidate import BACKEND, FRONTEND, PYTHON_RUNTIME, Candidate
from sandbox.projects.detection.python_dependencies import MANIFESTS, Dependencies
from sandbox.projects.detection.python_modules import Module, read_modules
from sandbox.projects.detection.python_servers import Server, notebook_server, page_server, site_server
from sandbox.projects.source import Folder

#: Frameworks with ASGI apps, and the package of each whose name differs.
_ASGI = frozenset({"fastapi", "starlette", "quart", "litestar", "blacksheep", "falcon", "fasthtml", "connexion"})
_PACKAGES = {"fasthtml": "python-fasthtml"}
_VARIABLES = ("app", "application", "api", "server")
#: Modules that a script imports to start a server: the package to install, if any, and the default port.
_SCRIPT_SERVERS: dict[str, tuple[str | None, int]] = {
    "gradio": ("gradio", 7860),
    "dash": ("dash", 8050),
    "nicegui": ("nicegui", 8080),
    "flask_socketio": ("flask-socketio", 5000),
    "aiohttp.web": ("aiohttp", 8080),
    "bottle": ("bottle", 8080),
    "tornado": ("tornado", 8888),
    "cherrypy": ("cherrypy", 8080),
    "fasthtml": ("python-fasthtml", 5001),
    "robyn": ("robyn", 8080),
    "pywebio": ("pywebio", 8080),
    "microdot": ("microdot", 5000),
    "web": ("web.py", 8080),
    "taipy": ("taipy", 5000),
    "fastmcp": ("fastmcp", 8000),
    "mcp.server": ("mcp", 8000),
    "pyramid": ("pyramid", 6543),
    "hypercorn": ("hypercorn", 8000),
    "granian": ("granian", 8000),
    "werkzeug.serving": ("werkzeug", 5000),
    "gevent.pywsgi": ("gevent", 8000),
    "sanic": ("sanic", 8000),
    "websockets": ("websockets", 8765),
    "waitress": ("waitress", 8080),
    "uvicorn": ("uvicorn", 8000),
    "http.server": (None, 8000),
    "socketserver": (None, 8000),
    "wsgiref": (None, 8000),
}
#: Frameworks that a script can start, too. The import alone does not show that it does.
_RUNNABLE: dict[str, tuple[str | None, int]] = {
    "flask": ("flask", 5000),
    "quart": ("quart", 5000),
    "fastapi": ("fastapi", 8000),
    "starlette": ("starlette", 8000),
    "litestar": ("litestar", 8000),
    "falcon": ("falcon", 8000),
}
#: The signatures of apps without a framework, the package of a server for them, and its command.
_BARE_APPS = (
    (
        re.compile(r"^def (application|app)\(environ\w*(?::[^,)]*)?, ?start_response", re.MULTILINE),
        "gunicorn",
        "gunicorn {module}:{name} --bind 0.0.0.0:8000",
    ),
    (
        re.compile(r"^async def (application|app)\(scope(?::[^,)]*)?, ?receive", re.MULTILINE),
        "uvicorn",
        "uvicorn {module}:{name} --host 0.0.0.0 --port 8000",
    ),
)
#: Folders of a project with a manifest in which the script may be that starts it.
_SCRIPT_FOLDERS = ("src", "app", "backend", "server", "web")
#: Only root may listen on lower ports.
_FIRST_UNPRIVILEGED_PORT = 1024


def detect_python(folder: Folder) -> list[Candidate]:
    """Return the Python apps of a folder: none, one, or a web app and a Streamlit page as its frontend."""
    dependencies = Dependencies(folder)
    modules = read_modules(_without_nested_projects(folder))
    imports = {name for module in modules for name in module.packages} - _local_names(folder)
    django = _django(folder, dependencies, imports)
    if django is not None:
        return [django]
    web = _web_app(folder, modules, dependencies, imports)
    page = page_server(modules)
    served = _served(folder, page, dependencies, imports, FRONTEND if web else BACKEND) if page else None
    if web or served:
        return [candidate for candidate in (web, served) if candidate]
    script = _script(folder, modules, dependencies, imports) or _bare_app(folder, modules, dependencies, imports)
    if script is None:
        site = site_server(folder)
        script = _served(folder, site, dependencies, imports, BACKEND) if site else None
    return [script] if script else []


def detect_notebooks(folder: Folder) -> Candidate | None:
    """Return the candidate for a folder of notebooks, or None."""
    server = notebook_server(folder)
    return _served(folder, server, Dependencies(folder), set(), BACKEND) if server else None


def _plan(folder: Folder, framework: str, install: str | None, start: str, port: int, **more: object) -> RolePlan:
    return RolePlan.model_validate(
        {
            "runtime": PYTHON_RUNTIME,
            "root": folder.path,
            "framework": framework,
            "install": install,
            "start": start,
            "port": port,
            **more,
        }
    )


def _django(folder: Folder, dependencies: Dependencies, imports: set[str]) -> Candidate | None:
    depth = 2 if dependencies.declared else 0
    found = [path for path in folder.files if path.rpartition("/")[2] == "manage.py" and path.count("/") <= depth]
    for path in sorted(found, key=lambda path: (path.count("/"), path)):
        text = folder.read(path) or ""
        if "django" not in text:
            continue
        subfolder = path.rpartition("/")[0]
        start = "python manage.py migrate --noinput && exec python manage.py runserver 0.0.0.0:8000"
        if subfolder:
            start = f"cd {shlex.quote(subfolder)} && {start}"
        install = dependencies.install({"django": "django"}, imports)
        return Candidate(BACKEND, _plan(folder, "django", install, start, 8000), text)
    return None


def _web_app(folder: Folder, modules: list[Module], dependencies: Dependencies, imports: set[str]) -> Candidate | None:
    creators = [m for m in modules if (m.apps or m.factories) and "flask_socketio" not in m.packages]
    if not dependencies.declared and len({module.path.split("/")[0] for module in creators}) > 1:
        # Several folders without a common manifest are separate apps.
        creators = [module for module in creators if not module.folder]
    for module in creators:
        app = _preferred(module.apps) or _preferred(module.factories)
        if app is None:
            continue
        name, framework = app
        is_factory = not module.apps
        base = _import_base(folder, module)
        dotted = _dotted_path(module.path, base)
        port = module.port if module.port and module.port >= _FIRST_UNPRIVILEGED_PORT else None
        env = {} if base == "" else {"PYTHONPATH": base}
        if framework in _ASGI:
            port = port or 8000
            package = _PACKAGES.get(framework, framework)
            needs = {package: package, "uvicorn": "uvicorn[standard]"}
            factory = "--factory " if is_factory else ""
            start = f"uvicorn {factory}{dotted}:{name} --host 0.0.0.0 --port {port} --reload"
            if module.serves_on_import:
                # A server that imports the module would run into the one that the module starts.
                port = module.port or _RUNNABLE.get(framework, (None, 8000))[1]
                start = f"python {shlex.quote(module.path)}"
        elif framework == "sanic":
            port = port or 8000
            needs = {"sanic": "sanic"}
            start = f"sanic {dotted}:{name} --host 0.0.0.0 --port {port} --dev{' --factory' if is_factory else ''}"
        else:
            port = port or 5000
            needs = {"flask": "flask"}
            start = f"flask --app {dotted}:{name} run --host 0.0.0.0 --port {port} --debug"
        install = dependencies.install(needs, imports)
        return Candidate(BACKEND, _plan(folder, framework, install, start, port, env=env), module.text)
    return None


def _served(folder: Folder, server: Server, dependencies: Dependencies, imports: set[str], role: str) -> Candidate:
    install = dependencies.install(server.needs, imports)
    plan = _plan(folder, server.framework, install, server.start, server.port, health=server.health)
    return Candidate(role, plan, server.text)


def _script(folder: Folder, modules: list[Module], dependencies: Dependencies, imports: set[str]) -> Candidate | None:
    """Return the candidate for a script that starts a server when it is run: one directly in the folder, a package that
    can be run, or else a script in a folder of a project with a manifest."""
    inner = [module for module in modules if dependencies.declared and module.folder in _SCRIPT_FOLDERS]
    for known, must_serve, chosen in (
        (_SCRIPT_SERVERS, False, modules),
        (_RUNNABLE, True, modules),
        (_SCRIPT_SERVERS | _RUNNABLE, True, inner),
    ):
        for module in chosen:
            runnable = module.path.endswith("/__main__.py") and module.folder.count("/") == 0
            if (module.folder and not runnable and chosen is not inner) or (must_serve and not module.serves):
                continue
            for library, (package, port) in known.items():
                if library.partition(".")[0] not in imports:  # a module of the project may have the same name
                    continue
                if not any(name == library or name.startswith(f"{library}.") for name in module.imports):
                    continue
                needs = {package: package} if package else {}
                install = dependencies.install(needs, imports) if needs or dependencies.declared else None
                start = f"python -m {module.folder}" if runnable else f"python {shlex.quote(module.path)}"
                plan = _plan(folder, package or "python", install, start, module.port or port)
                return Candidate(BACKEND, plan, module.text)
    return None


def _bare_app(folder: Folder, modules: list[Module], dependencies: Dependencies, imports: set[str]) -> Candidate | None:
    """Return the candidate for an app without a framework, by the arguments of WSGI or ASGI; None if there is none."""
    for module in modules:
        for pattern, package, start in _BARE_APPS:
            match = None if module.folder else pattern.search(module.text)
            if match:
                install = dependencies.install({package: package}, imports)
                command = f"{start.format(module=module.path[:-3], name=match[1])} --reload"
                return Candidate(BACKEND, _plan(folder, "python", install, command, 8000), module.text)
    return None


def _without_nested_projects(folder: Folder) -> Folder:
    """Exclude the subfolders that have a manifest of their own."""
    nested = {path.rpartition("/")[0] for path in folder.files if path.rpartition("/")[2] in MANIFESTS} - {""}
    return replace(folder, excluded=folder.excluded | nested)


def _preferred(apps: dict[str, str]) -> tuple[str, str] | None:
    """Return name and framework of one app, preferring the usual names of variables."""
    if not apps:
        return None
    name = next((name for name in _VARIABLES if name in apps), next(iter(apps)))
    return name, apps[name]


def _local_names(folder: Folder) -> set[str]:
    """Return the names of the project's own modules and folders, at any level from which they may be imported."""
    names = set()
    for path in folder.files:
        if path.endswith(".py"):
            *folders, name = path.split("/")
            names.update(folders)
            names.add(name[:-3])
    return names


def _import_base(folder: Folder, module: Module) -> str:
    """Return the folder that the module's absolute imports are relative to.

    It is the folder in which most of them are found, and among equals the outermost.
    """
    parts = module.folder.split("/") if module.folder else []
    bases = ["/".join(parts[:depth]) for depth in range(len(parts) + 1)]
    if module.uses_relative_imports and parts:
        bases.pop()  # Because of its relative imports, the module must be part of a package.

    def resolved(base: str) -> int:
        prefix = f"{base}/" if base else ""
        within = (path[len(prefix) :].partition("/") for path in folder.files if path.startswith(prefix))
        found = {name.removesuffix(".py") for name, slash, _ in within if slash or name.endswith(".py")}
        return len(module.packages & found)

    return max(bases, key=resolved)


def _dotted_path(path: str, base: str) -> str:
    inner = path[len(base) + 1 :] if base else path
    return inner.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
